//! A trace shown as hosts with guests.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use memharvest_trace::{GuestSample, HostSample, Replay, Trace, TraceFile, bundled, demo};

const GIB: u64 = 1 << 30;

fn trace(csv: &str) -> Trace {
    let csv = format!("vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes\n{csv}");
    Trace::read(TraceFile::from_reader("t.csv", std::io::Cursor::new(csv.into_bytes())).unwrap()).unwrap()
}

fn bundled_trace(bytes: &'static [u8]) -> Trace {
    Trace::read(TraceFile::from_reader("bundled", bytes).unwrap()).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn guests(hosts: &[HostSample]) -> Vec<&GuestSample> {
    hosts.iter().flat_map(|host| &host.guests).collect()
}

fn names(replay: &Replay, at: u64) -> Vec<String> {
    guests(&replay.at(seconds(at))).iter().map(|guest| guest.name.to_string()).collect()
}

#[test]
fn a_gap_is_absence_and_the_last_row_the_end() {
    // a: every 300 s, missing at 600. b: comes later and leaves early; its clock is a little off.
    let replay = Replay::new(
        trace(
            "a,1000,1024,1,2\na,1300,1024,1,2\na,1900,1024,1,2\na,2200,1024,1,2\na,2500,1024,1,2\n\
             b,1290,1024,1,2\nb,1615,1024,1,2\nb,1888,1024,1,2\nb,2190,1024,1,2\n",
        ),
        1,
    );
    assert_eq!(replay.step(), seconds(300));
    let shown: Vec<Vec<String>> = (0..6).map(|tick| names(&replay, tick * 300)).collect();
    let expected: [&[&str]; 6] = [&["a", "b"], &["a", "b"], &["b"], &["a", "b"], &["a"], &["a"]];
    assert_eq!(shown, expected);
    assert!(!replay.finished(seconds(1799)));
    assert!(replay.finished(seconds(1800)) && replay.length() == seconds(1800));
    assert!(names(&replay, 1800).is_empty());
    assert_eq!(names(&replay, 299), names(&replay, 0));
}

#[test]
fn used_becomes_demand_and_absent_stays_absent() {
    let replay = Replay::new(trace("a,0,1024,100,\nb,0,1024,,2048\nb,5,2048,3000,2048\nc,5,512,,\n"), 1);
    let first = replay.at(Duration::ZERO);
    let [a, b] = guests(&first)[..] else { panic!("{first:?}") };
    let stats = a.guest.unwrap();
    assert_eq!((stats.demand_bytes(), stats.total_bytes, a.rss_bytes), (Some(100), 1024, None));
    assert_eq!((a.has_balloon, a.stats_period_seconds), (true, Some(5)));
    assert_eq!((b.guest, b.has_balloon, b.rss_bytes, b.maximum_bytes), (None, true, Some(2048), 2048));

    let later = replay.at(seconds(5));
    let [b, c] = guests(&later)[..] else { panic!("{later:?}") };
    let stats = b.guest.unwrap();
    assert_eq!((stats.demand_bytes(), stats.last_update, b.uptime), (Some(3000), seconds(5), seconds(5)));
    assert_eq!((c.has_balloon, c.stats_period_seconds, c.guest), (false, None, None));
}

#[test]
fn a_hosts_memory_follows_from_its_guests() {
    let replay = Replay::new(
        trace(&format!("a,0,{},1,{GIB}\nb,0,{},{GIB},\nc,0,{GIB},,\na,5,{GIB},1,{GIB}\n", 4 * GIB, 3 * GIB)),
        1,
    );
    let hosts = replay.at(Duration::ZERO);
    assert_eq!((&*hosts[0].id, hosts[0].total_bytes), ("replay-1", 10 * GIB)); // 8 ÷ 0.8
    assert_eq!(hosts[0].available_bytes, 7 * GIB); // RSS 1, used 1, allocated 1
    assert_eq!(replay.at(seconds(5))[0].available_bytes, 9 * GIB);
}

#[test]
fn hosts_share_the_guests_and_keep_them() {
    let one = Replay::new(bundled_trace(demo()), 1);
    let three = Replay::new(bundled_trace(demo()), 3);
    let at = Duration::from_hours(30);
    let (one, shared) = (one.at(at), three.at(at));
    assert_eq!(shared.iter().map(|host| &*host.id).collect::<Vec<_>>(), ["replay-1", "replay-2", "replay-3"]);
    assert!(shared.iter().all(|host| host.guests.len() >= 3));
    assert_eq!(guests(&one).len(), guests(&shared).len());
    let host_of =
        |hosts: &[HostSample]| guests(hosts).iter().map(|guest| (guest.vm, guest.host)).collect::<Vec<_>>();
    assert!(host_of(&three.at(at + three.step())).iter().all(|placed| host_of(&shared).contains(placed)));
}

#[test]
fn a_hole_of_any_length_costs_nothing() {
    let replay = Replay::new(trace("a,0,1024,1,2\na,0.001,1024,1,2\na,0.002,1024,1,2\nb,1e11,1024,1,2\n"), 0);
    assert_eq!(names(&replay, 1_000_000), Vec::<String>::new());
    assert_eq!(names(&replay, 100_000_000_000), ["b"]);
}

#[test]
fn the_demo_is_what_it_promises_to_be() {
    assert!(demo().len() <= 400_000);
    let trace = bundled_trace(demo());
    assert_eq!(trace.vms().len(), 24);
    assert_eq!((trace.start_seconds(), trace.step()), (0.0, Duration::from_mins(5)));
    assert!((Duration::from_hours(119)..Duration::from_hours(120)).contains(&trace.duration()));
    assert!(trace.len() > 34_000);
    assert!(trace.readings().all(|reading| reading.used_bytes.is_some() && reading.rss_bytes.is_some()));

    // Quiet and lively: new peaks of RSS by a hundredth of the allocation, after the first two hours and on every day.
    let mut peaks = [0_u64; 24];
    let mut records = [0; 5];
    for reading in trace.readings() {
        let rss = reading.rss_bytes.unwrap();
        if rss > peaks[reading.vm] + reading.allocated_bytes / 100 {
            if reading.t_seconds > 7200.0 {
                let day =
                    (0_u32..5).rev().find(|day| reading.t_seconds >= f64::from(*day) * 86_400.0).unwrap();
                records[day as usize] += 1;
            }
            peaks[reading.vm] = rss;
        }
    }
    assert!(records.iter().all(|day| *day >= 5), "{records:?}");

    // Jitter is no gap: nearly every VM is there in nearly every tick.
    let replay = Replay::new(trace, 1);
    let seen: usize = (0..1440).map(|tick| guests(&replay.at(replay.step() * tick)).len()).sum();
    assert!(seen >= 24 * 1440 * 99 / 100, "{seen}");
}

#[test]
fn the_tasks_are_what_they_promise_to_be() {
    assert!(bundled::tasks().len() <= 60_000);
    let trace = bundled_trace(bundled::tasks());
    assert_eq!((trace.vms().len(), trace.step()), (10, seconds(2)));
    assert!(trace.readings().all(|reading| reading.used_bytes.is_some() && reading.rss_bytes.is_none()));
}
