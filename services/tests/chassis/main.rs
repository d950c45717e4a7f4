//! The chassis as a service sees it: settings by value, servers and clients over sockets on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod admin;
mod client;
mod drain;
mod http_beside;
mod mesh;
mod process;
mod server;
mod settings;
mod support;
mod traces;
