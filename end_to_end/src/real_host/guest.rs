//! Guests of a [`RealHost`](super::RealHost), whose memory moves at a test's word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Virsh;
use crate::tools;
use crate::wait::wait_for;

/// How long an emulated guest may take to do what it is told: a second for 300 MiB on an idle machine.
const ANSWER_DEADLINE: Duration = Duration::from_mins(2);

/// What a guest is to be like.
#[derive(Debug, Clone)]
pub struct GuestBuilder {
    name: String,
    folder: PathBuf,
    virsh: Virsh,
    uuid: Uuid,
    memory_mib: u64,
    stats_period: Option<u32>,
    free_page_reporting: bool,
    paused: bool,
}

impl GuestBuilder {
    pub(super) fn new(name: &str, host: &Path, virsh: Virsh) -> Self {
        Self {
            name: name.to_owned(),
            folder: host.join("guests"),
            virsh,
            uuid: Uuid::new_v4(),
            memory_mib: 1024,
            stats_period: Some(1),
            free_page_reporting: true,
            paused: false,
        }
    }

    /// The maximum, which is also the balloon's first size. 1 GiB by default: with less, QEMU's own overhead leaves
    /// nothing to harvest.
    #[must_use]
    pub fn memory_mib(self, memory_mib: u64) -> Self {
        Self { memory_mib, ..self }
    }

    /// How often the balloon driver reports, in seconds: 1 by default; with `None` it never does.
    #[must_use]
    pub fn stats_period(self, seconds: Option<u32>) -> Self {
        Self { stats_period: seconds, ..self }
    }

    /// Whether the guest hands pages back that it frees (the default), so that its RSS falls again.
    #[must_use]
    pub fn free_page_reporting(self, on: bool) -> Self {
        Self { free_page_reporting: on, ..self }
    }

    /// Created but never run: costs no processor time, and its balloon driver is dead.
    #[must_use]
    pub fn paused(self) -> Self {
        Self { paused: true, ..self }
    }

    /// Starts the guest. It boots for some 20 s; [`Guest::wait_until_balloon_alive`] waits for that.
    ///
    /// # Errors
    /// When libvirt refuses it.
    pub async fn start(self) -> anyhow::Result<Guest> {
        let file = self.folder.join(format!("{}.xml", self.name));
        std::fs::write(&file, self.xml()?)?;
        let file = file.to_str().context("the temporary folder's name is not UTF-8")?;
        let mut args = vec!["create", file];
        args.extend(self.paused.then_some("--paused"));
        self.virsh.run(&args).await?;
        Ok(Guest {
            name: self.name,
            uuid: self.uuid,
            folder: self.folder,
            virsh: self.virsh,
            console: Mutex::new(None),
        })
    }

    fn xml(&self) -> anyhow::Result<String> {
        let Self { name, uuid, memory_mib, .. } = self;
        let emulator = tools::host_root()?.canonicalize()?.join("qemu");
        let kernel = tools::guest_file("vmlinuz")?.canonicalize()?;
        let initramfs = tools::guest_file("initramfs.gz")?.canonicalize()?;
        let folder = self.folder.display();
        let reporting = if self.free_page_reporting { "on" } else { "off" };
        let stats =
            self.stats_period.map(|seconds| format!("<stats period='{seconds}'/>")).unwrap_or_default();
        // Without a cap on its translation cache, emulation alone would push RSS above the allocation. The kernel's last
        // argument is for the keeper: libvirt opens sockets and files itself, so nothing else of QEMU's command line
        // names this host.
        Ok(format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable memharvest.host={folder}/</cmdline>
  </os>
  <features><acpi/><tcg><tb-cache unit='MiB'>16</tb-cache></tcg></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{folder}/{name}.log'/><target port='0'/></serial>
    <serial type='unix'><source mode='bind' path='{folder}/{name}.sock'/><target port='1'/></serial>
    <memballoon model='virtio' freePageReporting='{reporting}'>{stats}</memballoon>
  </devices>
</domain>
",
            kernel = kernel.display(),
            initramfs = initramfs.display(),
            emulator = emulator.display(),
        ))
    }
}

/// A guest that was started. It ends with its host, or by [`Guest::destroy`].
#[derive(Debug)]
pub struct Guest {
    name: String,
    uuid: Uuid,
    folder: PathBuf,
    virsh: Virsh,
    console: Mutex<Option<BufReader<UnixStream>>>,
}

impl Guest {
    /// Its name in libvirt.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UUID in libvirt.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The figures of `virsh dommemstat`, by its names: sizes in KiB, `last_update` in Unix seconds, faults and swaps
    /// as counts. What libvirt does not say is absent.
    ///
    /// # Errors
    /// When virsh fails, or the guest is stopped.
    pub async fn memory_stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let printed = self.virsh.run(&["dommemstat", &self.name]).await?;
        printed
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(' ').with_context(|| format!("odd line `{line}`"))?;
                Ok((name.to_owned(), value.parse().with_context(|| format!("odd line `{line}`"))?))
            })
            .collect()
    }

    /// Waits until the guest has booted and obeys, whether or not its balloon reports.
    ///
    /// # Errors
    /// When `deadline` passes first; the end of the guest's console is part of the message.
    pub async fn wait_until_booted(&self, deadline: Duration) -> anyhow::Result<()> {
        let console = wait_for(deadline, &format!("guest {} to boot", self.name), async || {
            let mut console =
                BufReader::new(UnixStream::connect(self.folder.join(format!("{}.sock", self.name))).await?);
            tokio::time::timeout(Duration::from_secs(2), ask(&mut console, "ping", "ok ping")).await??;
            Ok(console)
        })
        .await
        .with_context(|| self.console_log())?;
        *self.console.lock().await = Some(console);
        Ok(())
    }

    /// Waits until the guest has booted and its balloon driver has reported for the first time.
    ///
    /// # Errors
    /// When `deadline` passes first, which it does for a guest without a statistics period.
    pub async fn wait_until_balloon_alive(&self, deadline: Duration) -> anyhow::Result<()> {
        self.wait_until_booted(deadline).await?;
        wait_for(deadline, &format!("the balloon driver of {}", self.name), async || {
            let stats = self.memory_stats().await?;
            ensure!(stats.contains_key("usable"), "virsh dommemstat says {stats:?}");
            Ok(())
        })
        .await
    }

    /// Makes the guest hold exactly `mib` MiB in memory that it cannot give up; returns when it does.
    ///
    /// # Errors
    /// When the guest has not booted, does not answer, or has not so much memory.
    pub async fn hold(&self, mib: u64) -> anyhow::Result<()> {
        let mut console = self.console.lock().await;
        let console =
            console.as_mut().context("wait until the guest has booted before telling it to hold memory")?;
        let (command, answer) = (format!("hold {mib}"), format!("ok hold {mib}"));
        let done = ask(console, &command, &answer);
        tokio::time::timeout(ANSWER_DEADLINE, done).await.with_context(|| {
            format!("guest {} did not come to hold {mib} MiB within {ANSWER_DEADLINE:?}", self.name)
        })?
    }

    /// Lets go of all that [`Self::hold`] made the guest hold.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn release(&self) -> anyhow::Result<()> {
        self.hold(0).await
    }

    /// Moves the balloon to `mib` MiB. The guest follows within seconds, as far as it can.
    ///
    /// # Errors
    /// When libvirt refuses it.
    pub async fn set_memory(&self, mib: u64) -> anyhow::Result<()> {
        self.virsh.run(&["setmem", &self.name, &format!("{mib}M"), "--live"]).await.map(drop)
    }

    /// The process id of its QEMU.
    ///
    /// # Errors
    /// When the guest does not run.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let run = self.folder.with_file_name("run").join("libvirt/qemu");
        // A session daemon keeps them one folder deeper.
        let file = [run.clone(), run.join("run")].map(|folder| folder.join(format!("{}.pid", self.name)));
        let text = std::fs::read_to_string(&file[0])
            .or_else(|_| std::fs::read_to_string(&file[1]))
            .with_context(|| format!("guest {} does not run", self.name))?;
        Pid::from_raw(text.trim().parse()?).context("process id 0")
    }

    /// Stops its QEMU with `SIGSTOP`: the monitor no longer answers, which libvirt takes for patience.
    ///
    /// # Errors
    /// When the guest does not run.
    pub fn stop_process(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Lets its QEMU go on after [`Self::stop_process`].
    ///
    /// # Errors
    /// When the guest does not run.
    pub fn continue_process(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Ends the guest as if its power were cut.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn destroy(self) -> anyhow::Result<()> {
        self.virsh.run(&["destroy", &self.name]).await.map(drop)
    }

    /// The last lines that the guest's kernel printed.
    fn console_log(&self) -> String {
        let log = std::fs::read(self.folder.join(format!("{}.log", self.name))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        format!("console of guest {}:\n{}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

/// Sends one command and waits for its answer; answers to earlier commands are passed over.
async fn ask(console: &mut BufReader<UnixStream>, command: &str, answer: &str) -> anyhow::Result<()> {
    console.write_all(format!("{command}\n").as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(console.read_line(&mut line).await? > 0, "the guest's console closed");
        let said = line.trim();
        if said == answer {
            return Ok(());
        }
        ensure!(!said.starts_with("failed"), "the guest {said} MiB; it was told to {command}");
    }
}
