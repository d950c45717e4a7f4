//! A look at a hypervisor, for programs that do not link libvirt.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::hypervisor::libvirt::LibvirtHypervisor;
use crate::hypervisor::{Hypervisor, SampleError, Tick};
use crate::reading::Host;

const PATIENCE: Duration = Duration::from_secs(5);

/// Counts the machines that are active on a hypervisor. Blocks, for 5 seconds at most.
///
/// # Errors
/// When the hypervisor cannot be reached, or does not answer.
pub fn active_machines(uri: &str) -> Result<usize, SampleError> {
    let mut hypervisor = LibvirtHypervisor::new(uri, Host::default(), Path::new("/proc"));
    let tick = Tick { at: Timestamp::now(), interval: PATIENCE, budget: PATIENCE };
    Ok(hypervisor.sample(tick)?.iter().map(|reading| reading.vms.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_driver_has_one_machine() {
        assert_eq!(active_machines("test:///default"), Ok(1));
    }

    #[test]
    fn a_hypervisor_that_is_not_there_is_told() {
        let said = active_machines("qemu+unix:///system?socket=/nowhere/sock").unwrap_err().to_string();
        assert!(said.contains("libvirt"), "{said}");
    }
}
