"""What Klingel tells of itself: logs, metrics, traces, and its health for machines that look after this one."""
