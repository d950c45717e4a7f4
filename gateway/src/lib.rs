//! Live state and the store, for people, scripts, browsers and Prometheus.
