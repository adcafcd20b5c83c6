"""What no policy can beat: bounds that know the whole trace and every answer."""
