//! Host to readings: the only crate that links libvirt.

pub mod host_memory;
pub mod hypervisor;
pub mod quality;
pub mod reading;
