//! The mesh under test, in one piece and on real guests.

pub mod alertmanager;
pub mod apart;
pub mod grpcurl;
pub mod ledger;
pub mod mesh;
pub mod metrics_page;
pub mod otlp;
pub mod prometheus;
pub mod real_host;
pub mod shape;
pub mod tools;
pub mod wait;
pub mod web;
pub mod yaml;
