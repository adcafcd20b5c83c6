"""Virtual time: devices, links and servers as one machine that is stepped."""
