//! The causes that are known, in words, with their cures. Pure.

use memharvest_proto::collector::v1::Severity;

use crate::hypervisor::SampleError;
use crate::quality;
use crate::reading::{Definition, HostReading, Monitor, VmReading, VmState};

/// A cause with its cure.
pub(super) struct Cause {
    /// Short stable word.
    pub(super) code: &'static str,
    /// How much it costs.
    pub(super) severity: Severity,
    /// The cause, in one sentence.
    pub(super) text: String,
    /// A command or a step.
    pub(super) cure: String,
}

impl Cause {
    fn new(code: &'static str, severity: Severity, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code, severity, text: text.into(), cure: cure.into() }
    }
}

/// Why nothing of a host can be read.
pub(super) fn of_failure(error: &SampleError) -> Cause {
    let (code, cure) = match error {
        SampleError::Overrun { .. } => (
            "libvirt_overrun",
            "find out what holds up the daemon: `virsh domcontrol VM` tells which machine is busy; restart libvirtd if all are",
        ),
        SampleError::Unusable(_) => {
            ("libvirt_unusable", "correct the setting that the cause names, and start the collector again")
        }
        _ => (
            "libvirt_unreachable",
            "start it (systemctl start libvirtd, or virtqemud.socket), and let the collector reach it: its user must be \
             allowed to open the read-only socket, and a container needs the folder /run/libvirt mounted",
        ),
    };
    Cause::new(code, Severity::Error, error.to_string(), cure)
}

/// What is wrong with a host itself.
pub(super) fn of_host(reading: &HostReading) -> Vec<Cause> {
    let mut causes = Vec::new();
    if reading.memory.available.is_none() {
        causes.push(Cause::new(
            "no_host_memory",
            Severity::Warning,
            "the memory of the host itself is not known, so no lease can be granted on it",
            "run the collector on the host that its libvirt URI names, with /proc readable",
        ));
    }
    let swapped = reading.memory.swap_used().is_some_and(|used| used > 0);
    if swapped && reading.vms.iter().any(|vm| vm.swap.is_none()) {
        causes.push(Cause::new(
            "swap_unknown",
            Severity::Warning,
            "the host swaps, and how much of each machine is swapped out cannot be read",
            "let the collector see the host's processes (hostPID in Kubernetes), or switch off swap on the host",
        ));
    }
    causes
}

/// What is wrong with a machine.
pub(super) fn of_machine(vm: &VmReading, reading: &HostReading) -> Vec<Cause> {
    let name = quoted(&vm.name);
    if vm.monitor == Monitor::Silent {
        return vec![Cause::new(
            "stuck",
            Severity::Error,
            "the machine's monitor does not answer: its QEMU process is stopped, or waits for storage",
            format!("virsh domcontrol {name}; then look at its process and at the storage behind its disks"),
        )];
    }
    let Some(definition) = vm.definition else {
        return vec![Cause::new(
            "no_definition",
            Severity::Warning,
            "the machine's definition could not be read yet",
            format!("virsh -r dumpxml {name} must work for the collector's user"),
        )];
    };
    let mut causes: Vec<_> = backing(definition).into_iter().collect();
    if definition.pinned() {
        causes.push(Cause::new(
            "pinned",
            Severity::Info,
            "the machine's memory is locked or a device is passed through to it: a balloon gains nothing",
            "none while the device or <locked/> is needed",
        ));
    }
    if causes.is_empty() {
        causes.extend(balloon(vm, definition, reading, &name));
    }
    causes
}

/// Memory that the resident set says nothing of.
fn backing(definition: Definition) -> Option<Cause> {
    let (code, what) = match definition {
        Definition { hugepages: true, .. } => {
            ("hugepages", "huge pages, which are taken from the host in full")
        }
        Definition { private_memory: true, .. } => {
            ("private_memory", "private memory, which the host cannot see")
        }
        _ => return None,
    };
    let text = format!("the machine is backed by {what}: its resident set says nothing");
    Some(Cause::new(code, Severity::Info, text, "none while it is needed: such a machine is never harvested"))
}

/// What is wrong between the balloon device, its period and the guest's driver. One thing at a time: the first to mend.
fn balloon(vm: &VmReading, definition: Definition, reading: &HostReading, name: &str) -> Option<Cause> {
    let warning = |code, text: &str, cure: String| Some(Cause::new(code, Severity::Warning, text, cure));
    if !definition.balloon {
        return warning(
            "no_balloon",
            "the machine has no balloon device: nothing is known of the guest's own need",
            format!(
                "virsh edit {name}: put <memballoon model='virtio' freePageReporting='on'><stats period='10'/></memballoon> \
                 among its devices, then shut it down and start it"
            ),
        );
    }
    if definition.stats_period.is_none() {
        return warning(
            "no_period",
            "no statistics period is set: the guest's figures never move",
            format!("virsh dommemstat {name} --period 10 --live --config"),
        );
    }
    if vm.state != VmState::Running {
        return None;
    }
    if vm.guest.last_update.is_none() {
        return warning(
            "no_driver",
            "the guest has never reported: no balloon driver runs in it, or it has not booted yet",
            "in the guest: modprobe virtio_balloon (Linux), or install the balloon driver and service of virtio-win (Windows)"
                .into(),
        );
    }
    if !quality::demand_is_fresh(vm, reading.interval, reading.read_at) {
        return warning(
            "stale_driver",
            "the guest has stopped reporting: its driver or service hangs",
            "in the guest: restart the balloon service (Windows), or look for a hang (Linux)".into(),
        );
    }
    (!definition.free_page_reporting).then(|| {
        Cause::new(
            "no_free_page_reporting",
            Severity::Info,
            "memory that the guest frees stays with its process until it is restarted",
            format!("virsh edit {name}: put freePageReporting='on' on its <memballoon>, then shut it down and start it"),
        )
    })
}

/// The name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | ':' | '@' | '%' | '/');
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}
