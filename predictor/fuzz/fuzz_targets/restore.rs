//! Whatever lies in a snapshot, even under a checksum that fits: no panic, it is refused or it is a state.
//!
//! Run by `make fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memharvest_predictor::domain::Signal;
use memharvest_predictor::host::HostState;
use memharvest_predictor::snapshot;
use memharvest_predictor::model::choice::Choice;
use memharvest_predictor::vm::VmState;
use memharvest_proto::registry::v1::ModelSnapshot;

fuzz_target!(|parts: (bool, Vec<u8>)| {
    let (of_machine, bytes) = parts;
    let vm_id = if of_machine { "0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e01" } else { "" };
    let snapshot = snapshot::seal(ModelSnapshot {
        vm_id: vm_id.into(),
        host_id: "h".into(),
        model_version: <VmState>::default().track(Signal::Rss).model_version().into_owned(),
        state: [b"MHVS", &snapshot::VERSION.to_le_bytes()[..], &bytes].concat(),
        ..ModelSnapshot::default()
    });
    let restored = HostState::restore("h", &[snapshot], Choice::default(), 1.7e9);
    let _ = restored.host.snapshots();
});
