"""What those who run Isthmus need beside its answers: telling a service manager, and measuring a link."""
