//! The registry as callers and operators meet it: through a real server, and as the real program.
#![cfg(test)]

mod admin;
mod agents;
mod bad_input;
mod boundaries;
mod commands;
mod every_field;
mod every_rpc;
mod faults;
mod full_disk;
mod history;
mod lease_replicas;
mod leases;
mod models;
mod opening;
mod opening_postgres;
mod pages;
mod postgres;
mod process;
mod proxy;
mod records;
mod replicas;
mod server;
mod tokens;
mod versions;
mod violations;
