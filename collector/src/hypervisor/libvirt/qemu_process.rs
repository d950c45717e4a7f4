//! What the kernel says of a QEMU process, for what libvirt does not tell: swap, and the memory of a machine whose
//! monitor is silent. Works where the host's processes can be seen, and is absent elsewhere.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::host_memory::parse_kib;

/// How long to wait before all processes are looked through again.
const SEARCH_AGAIN: Duration = Duration::from_secs(30);

/// The QEMU processes of the machines that were looked for.
#[derive(Debug)]
pub(super) struct QemuProcesses {
    proc: PathBuf,
    pids: HashMap<Uuid, u32>,
    searched_at: Option<Timestamp>,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessMemory {
    /// Resident set.
    pub(super) rss: Option<u64>,
    /// Swapped out.
    pub(super) swap: Option<u64>,
}

impl QemuProcesses {
    pub(super) fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), pids: HashMap::new(), searched_at: None }
    }

    pub(super) fn knows(&self, machine: &Uuid) -> bool {
        self.pids.contains_key(machine)
    }

    /// Looks through all processes, unless that was done a moment ago.
    pub(super) fn search(&mut self, now: Timestamp) {
        let waited = |at| Duration::try_from(now.duration_since(at)).unwrap_or_default() >= SEARCH_AGAIN;
        if self.searched_at.is_some_and(|at| !waited(at)) {
            return;
        }
        self.searched_at = Some(now);
        let Ok(entries) = fs::read_dir(&self.proc) else { return };
        self.pids = entries
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let comm = self.file(pid, "comm")?;
                let is_qemu = comm.starts_with("qemu") || comm.starts_with("kvm");
                let cmdline = is_qemu.then(|| self.file(pid, "cmdline"))??;
                Some((machine_of(&cmdline)?, pid))
            })
            .collect();
    }

    pub(super) fn forget_all_but(&mut self, keep: impl Fn(&Uuid) -> bool) {
        self.pids.retain(|uuid, _| keep(uuid));
    }

    /// Memory of the machine's process; absent where it was not found. A process that is gone is forgotten by the
    /// next search.
    pub(super) fn memory(&self, machine: &Uuid) -> Option<ProcessMemory> {
        let status = self.file(*self.pids.get(machine)?, "status")?;
        Some(parse_status(&status))
    }

    fn file(&self, pid: u32, name: &str) -> Option<String> {
        let bytes = fs::read(self.proc.join(pid.to_string()).join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The machine that a QEMU command line runs; libvirt always passes `-uuid`.
fn machine_of(cmdline: &str) -> Option<Uuid> {
    let mut words = cmdline.split('\0').skip_while(|word| *word != "-uuid");
    words.nth(1)?.parse().ok()
}

fn parse_status(status: &str) -> ProcessMemory {
    let field = |name: &str| status.lines().find_map(|line| parse_kib(line.strip_prefix(name)?));
    ProcessMemory { rss: field("VmRSS:"), swap: field("VmSwap:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Uuid = Uuid::from_u128(0x6695_eb01_f6a4_8304_79aa_97f2_502e_193f);

    #[test]
    fn a_process_is_found_by_its_machine_and_read() {
        let tree = tempfile::tempdir().unwrap();
        let write = |pid: &str, comm: &str, cmdline: String| {
            let process = tree.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("comm"), comm).unwrap();
            fs::write(process.join("cmdline"), cmdline).unwrap();
            fs::write(process.join("status"), "Name:\tq\nVmRSS:\t    2048 kB\nVmSwap:\t      12 kB\n")
                .unwrap();
        };
        write("12", "qemu-system-x86\n", format!("/usr/bin/qemu-system-x86_64\0-S\0-uuid\0{MACHINE}\0"));
        write("13", "bash\n", format!("bash\0-uuid\0{}\0", Uuid::nil()));
        fs::create_dir(tree.path().join("sys")).unwrap();

        let mut processes = QemuProcesses::new(tree.path());
        assert_eq!(processes.memory(&MACHINE), None);
        processes.search(Timestamp::UNIX_EPOCH);
        assert!(!processes.knows(&Uuid::nil()));
        let expected = ProcessMemory { rss: Some(2048 * 1024), swap: Some(12 * 1024) };
        assert_eq!(processes.memory(&MACHINE), Some(expected));
        processes.forget_all_but(|_| false);
        assert!(!processes.knows(&MACHINE));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_absent() {
        assert_eq!(parse_status("Name:\tq\n"), ProcessMemory::default());
        assert_eq!(machine_of("qemu\0-uuid\0"), None);
        assert_eq!(machine_of("qemu\0-S\0"), None);
    }
}
