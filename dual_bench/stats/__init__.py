"""From prediction rows to estimates with intervals: cubes, resampling, degradation curves, contrasts."""
