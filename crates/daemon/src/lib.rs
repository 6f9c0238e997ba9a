//! What every long-running process needs: configuration, logs, metrics, health.
