//! The command line of each of the four processes. Pure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::binaries::Binaries;
use super::data_dir::DataDir;
use super::ports::Ports;
use super::source::{Kind, Pace, Source};
use super::supervisor::ChildSpec;

/// The bundled trace does not say where its machines ran: enough hosts to see sums over them.
const DEMO_HOSTS: u32 = 3;

/// All that the command lines are made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Where the programs are.
    pub(crate) binaries: &'a Binaries,
    /// Where they listen.
    pub(crate) ports: Ports,
    /// Where they keep what must last.
    pub(crate) data: &'a DataDir,
    /// What they are fed with.
    pub(crate) source: &'a Source,
    /// The trace's file, where the source is one.
    pub(crate) trace: Option<PathBuf>,
    /// How fast they run.
    pub(crate) pace: Pace,
    /// When mesh time and wall time agree.
    pub(crate) origin: Timestamp,
    /// How long a process may drain.
    pub(crate) drain: Duration,
    /// Flags that all processes get.
    pub(crate) shared: Vec<OsString>,
    /// Whether the gateway may listen beyond this machine.
    pub(crate) insecure: bool,
}

impl Plan<'_> {
    /// The four processes in the order of starting.
    pub(crate) fn children(&self) -> Vec<ChildSpec> {
        let registry = format!("http://{}", self.ports.registry.listen);
        let predictor = format!("http://{}", self.ports.predictor.listen);
        let folder = self.data.path();
        self.ports
            .each()
            .into_iter()
            .map(|(process, endpoint)| {
                let mut args = Args::default();
                args.flag("listen", endpoint.listen.to_string())
                    .flag("admin-listen", endpoint.admin.to_string())
                    .flag(
                        "drain-deadline",
                        humantime::format_duration(self.drain).to_string().replace(' ', ""),
                    );
                args.0.push("--supervised".into());
                args.0.extend(self.shared.iter().cloned());
                if self.source.kind() != Kind::Live {
                    args.flag("clock-origin", self.origin.to_string())
                        .flag("clock-factor", self.pace.factor.to_string());
                }
                match process {
                    "registry" => {
                        args.flag("database", self.data.store());
                    }
                    "predictor" => {
                        args.flag("registry", &registry).flag("data-dir", folder);
                        if let Some(cold_start) = self.pace.cold_start {
                            args.flag("cold-start", duration(cold_start));
                        }
                    }
                    "gateway" => {
                        args.flag("predictor", &predictor).flag("registry", &registry);
                        if self.insecure {
                            args.0.push("--insecure".into());
                        }
                    }
                    _ => {
                        args.flag("predictor", &predictor).flag("registry", &registry);
                        args.flag("interval", duration(self.pace.interval));
                        self.source_flags(&mut args);
                    }
                }
                ChildSpec {
                    process,
                    program: self.binaries.program(process),
                    args: args.0,
                    log: self.data.log(process),
                }
            })
            .collect()
    }

    fn source_flags(&self, args: &mut Args) {
        match self.source {
            Source::Libvirt { uri } => {
                args.flag("libvirt-uri", uri);
            }
            Source::Trace { file } => {
                if let Some(path) = self.trace.as_ref().or(file.as_ref()) {
                    args.flag("trace", path);
                }
                if file.is_none() {
                    args.flag("trace-hosts", DEMO_HOSTS.to_string());
                }
            }
            Source::Simulation { shape, seed } => {
                args.flag("simulate", shape.to_string());
                if let Some(seed) = seed {
                    args.flag("seed", seed.to_string());
                }
            }
        }
    }
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value.into());
        self.0.push(flag);
        self
    }
}

fn duration(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(source: &Source, trace: Option<PathBuf>) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        for process in ["registry", "predictor", "gateway", "collector"] {
            std::fs::write(folder.path().join(format!("memharvest-{process}")), "").unwrap();
        }
        let plan = Plan {
            binaries: &Binaries::find(folder.path()).unwrap(),
            ports: Ports::documented("127.0.0.1:8080".parse().unwrap()),
            data: &DataDir::open(Some(&folder.path().join("data")), source.kind()).unwrap(),
            source,
            trace,
            pace: Pace::of(source, None, None, None),
            origin: "2026-01-02T03:04:05Z".parse().unwrap(),
            drain: Duration::from_secs(5),
            shared: vec!["--log-filter=debug".into()],
            insecure: false,
        };
        let line = |spec: &ChildSpec| {
            spec.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        plan.children().iter().map(|spec| (spec.process.to_owned(), line(spec))).collect()
    }

    #[test]
    fn a_replay_gives_all_four_one_clock_and_the_collector_the_trace() {
        let flags = flags(&Source::Trace { file: None }, Some("/data/demo.csv.gz".into()));
        assert_eq!(
            flags.iter().map(|(process, _)| process.as_str()).collect::<Vec<_>>(),
            ["registry", "predictor", "gateway", "collector"]
        );
        for (process, line) in &flags {
            assert!(
                line.contains("--clock-origin=2026-01-02T03:04:05Z --clock-factor=300"),
                "{process}: {line}"
            );
            assert!(line.contains("--supervised --log-filter=debug"), "{process}: {line}");
        }
        assert!(
            flags[3].1.ends_with("--interval=5m --trace=/data/demo.csv.gz --trace-hosts=3"),
            "{}",
            flags[3].1
        );
        assert!(flags[1].1.ends_with("--cold-start=1h"), "{}", flags[1].1);
    }

    #[test]
    fn live_machines_run_on_the_wall_clock() {
        let flags = flags(&Source::Libvirt { uri: "qemu:///system".into() }, None);
        assert!(flags.iter().all(|(_, line)| !line.contains("clock")), "{flags:?}");
        assert!(flags[3].1.ends_with("--interval=5s --libvirt-uri=qemu:///system"), "{}", flags[3].1);
        assert!(!flags[1].1.contains("cold-start"), "{}", flags[1].1);
        assert!(flags[2].1.contains("--predictor=http://127.0.0.1:7402 --registry=http://127.0.0.1:7401"));
    }
}
