//! The contract of the mesh: every service and message of `memharvest.*.v1`, generated from the files beside this crate.
//!
//! Everything depends on this crate and it depends on nothing of the workspace.

/// Encoded `FileDescriptorSet` of all services with their imports and comments, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Measuring one host: readings and findings.
pub mod collector {
    /// `memharvest.collector.v1`
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("memharvest.collector.v1");
    }
}

/// Forecasts, harvest and the live state.
pub mod predictor {
    /// `memharvest.predictor.v1`
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("memharvest.predictor.v1");
    }
}

/// What must last.
pub mod registry {
    /// `memharvest.registry.v1`
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("memharvest.registry.v1");
    }
}

/// The fleet, for people, scripts and browsers.
pub mod gateway {
    /// `memharvest.gateway.v1`
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("memharvest.gateway.v1");
    }
}
