//! The gateway over real sockets, with a small registry and small predictors behind it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod boundaries;
mod browsers;
mod docs;
mod errors;
mod federation;
mod fleet;
mod http;
mod mesh;
mod oidc;
mod openapi;
mod predictor;
mod prometheus;
mod registry;
mod rpc;
mod tls;
mod violations;
