//! Two small extracts of real traces, carried in the binary. `data/README.md` says where they come from and how they were cut.

/// 24 virtual machines over 5 days, one reading in 5 minutes, with `used_bytes` and `rss_bytes`: a gzipped trace CSV.
///
/// Source: Bitbrains, GWA-T-12 "Rnd", Grid Workloads Archive.
#[must_use]
pub fn demo() -> &'static [u8] {
    include_bytes!("../data/demo.csv.gz")
}

/// 10 short-lived container tasks, one reading in 2 seconds, with `used_bytes` alone: a gzipped trace CSV of fast ramps.
///
/// Source: public memory traces of nf-core workflow tasks (k-segments).
#[must_use]
pub fn tasks() -> &'static [u8] {
    include_bytes!("../data/tasks.csv.gz")
}
