//! Compiles the contract with protox, so that no protoc is needed, and keeps its descriptors for reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const SERVICES: [&str; 11] = [
    "memharvest/collector/v1/collector_service.proto",
    "memharvest/predictor/v1/predictor_service.proto",
    "memharvest/registry/v1/agent_service.proto",
    "memharvest/registry/v1/audit_service.proto",
    "memharvest/registry/v1/boundary_service.proto",
    "memharvest/registry/v1/harvest_service.proto",
    "memharvest/registry/v1/lease_service.proto",
    "memharvest/registry/v1/model_service.proto",
    "memharvest/registry/v1/token_service.proto",
    "memharvest/registry/v1/violation_service.proto",
    "memharvest/gateway/v1/fleet_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=memharvest");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(SERVICES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("descriptors.bin"), &descriptors)?;
    let set = prost_types::FileDescriptorSet::decode(descriptors.as_slice())?;
    tonic_prost_build::configure().btree_map(".").compile_fds(set)?;
    Ok(())
}
