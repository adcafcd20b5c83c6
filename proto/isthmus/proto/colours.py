"""The colours of everything that is plotted: Okabe and Ito's, which colour-blind readers tell apart too."""

from __future__ import annotations

OKABE_ITO = ("#0072b2", "#009e73", "#e69f00", "#d55e00")
"""Blue, green, orange and vermillion, in the order in which the lines of a plot take them."""
