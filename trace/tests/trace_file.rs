//! Reading and writing trace files: what is accepted, and what the refusals say.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use memharvest_trace::{Trace, TraceFile, TraceRow, TraceWriter, vm_uuid};
use proptest::prelude::*;

const HEADER: &str = "vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes\n";

fn read(bytes: impl AsRef<[u8]>) -> Result<Vec<TraceRow>, String> {
    let bytes = bytes.as_ref().to_vec();
    TraceFile::from_reader("t.csv", std::io::Cursor::new(bytes))
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())
}

fn load(bytes: impl AsRef<[u8]>) -> Result<Trace, String> {
    let bytes = bytes.as_ref().to_vec();
    TraceFile::from_reader("t.csv", std::io::Cursor::new(bytes))
        .and_then(Trace::read)
        .map_err(|error| error.to_string())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn written(rows: &[TraceRow]) -> Vec<u8> {
    let mut csv = TraceWriter::new(Vec::new()).unwrap();
    for row in rows {
        csv.write(row).unwrap();
    }
    csv.finish().unwrap()
}

fn row(name: &str, t_seconds: f64, used_bytes: Option<u64>, rss_bytes: Option<u64>) -> TraceRow {
    TraceRow {
        vm: vm_uuid(name),
        name: Arc::from(name),
        t_seconds,
        allocated_bytes: 1024,
        used_bytes,
        rss_bytes,
    }
}

#[test]
fn columns_in_any_order_and_empty_cells_are_absent() {
    let text = "rss_bytes, note ,used_bytes,vm_id,allocated_bytes,t_seconds\n\
                ,x,7,a,1024,1.5\n\
                9,y,, b ,1024.0,2\n";
    assert_eq!(read(text).unwrap(), [row("a", 1.5, Some(7), None), row("b", 2.0, None, Some(9))]);
}

#[test]
fn rss_may_be_missing_and_demand_is_another_name_for_used() {
    let rows = read("\u{feff}vm_id,t_seconds,allocated_bytes,demand_bytes\r\na,0,1024,1e3\r\n\r\n").unwrap();
    assert_eq!(rows, [row("a", 0.0, Some(1000), None)]);
}

#[test]
fn a_uuid_stays_and_any_other_name_becomes_one() {
    let uuid = "8F14E45F-CEEA-467F-A8A5-1D5B5E2C9A11";
    let rows = read(format!("{HEADER}{uuid},0,1,,\nvm-000,0,1,,\n")).unwrap();
    assert_eq!(rows[0].vm.to_string(), uuid.to_lowercase());
    assert_eq!(&*rows[0].name, uuid);
    // Pinned: a stored history must find its VMs again.
    assert_eq!(rows[1].vm.to_string(), "df97bb10-1d4b-5783-8a6a-a3f7005c60c9");
    assert_eq!(&*rows[1].name, "vm-000");
}

#[test]
fn gzip_is_known_by_its_first_bytes_and_may_have_several_members() {
    let (head, tail) = (format!("{HEADER}a,0,1024,1,2\n"), "a,5,1024,3,4\n");
    let packed = [gzip(head.as_bytes()), gzip(tail.as_bytes())].concat();
    assert_eq!(read(packed).unwrap(), read(head + tail).unwrap());
}

#[test]
fn a_refusal_names_place_value_and_cure() {
    let cases = [
        ("", "t.csv: the trace file is empty"),
        (HEADER, "t.csv: the trace file has a header and no rows"),
        (
            "vm_id,t_seconds,used_bytes\n",
            "line 1: column allocated_bytes is missing, found \"vm_id,t_seconds,used_bytes\"",
        ),
        ("vm_id;t_seconds;allocated_bytes;used_bytes\n", "column vm_id is missing, found \"vm_id;t_seconds;"),
        ("vm_id,t_seconds,allocated_bytes,used_bytes,demand_bytes\n", "column used_bytes is named twice"),
        ("H a,0,1024,1", "line 2: the row has 4 cells and the header 5"),
        ("H ,0,1024,1,1", "line 2: vm_id is \"\", the name or UUID of a VM is needed"),
        ("H a,-1,1024,1,1", "line 2: t_seconds is \"-1\", a number of seconds from 0"),
        ("H a,NaN,1024,1,1", "line 2: t_seconds is \"NaN\""),
        ("H a,inf,1024,1,1", "line 2: t_seconds is \"inf\""),
        ("H a,1700000000000,1024,1,1", "milliseconds are to be divided by 1000"),
        ("H a,0,0,1,1", "line 2: allocated_bytes is \"0\", a whole number of bytes above 0 is needed"),
        ("H a,0,,1,1", "line 2: allocated_bytes is \"\""),
        ("H a,0,1,abc,1", "line 2: used_bytes is \"abc\", a whole number of bytes is needed"),
        ("H a,0,1,1.5,1", "line 2: used_bytes is \"1.5\""),
        ("H a,0,1,1,-1", "line 2: rss_bytes is \"-1\""),
        ("H a,0,1,1,18446744073709551615", "line 2: rss_bytes is \"18446744073709551615\""),
        ("H a,0,1,1,1\n\n\na,x,1,1,1", "line 5: t_seconds is \"x\""),
        ("H a,0,1,1,1\r\n\r\na,1,1,1,1\r\na,2,1,?,1", "line 5: used_bytes is \"?\""),
        ("H \"a,0,1,1,1\nb,0,1,1,1\n", "line 2: the row has 1 cells and the header 5"),
    ];
    for (text, message) in cases {
        let told = read(text.replacen("H ", HEADER, 1)).unwrap_err();
        assert!(told.contains(message), "{text:?} gave {told:?}, not {message:?}");
        assert!(!told.contains('\n') && told.len() < 300, "{told:?}");
    }
}

#[test]
fn a_reading_given_twice_is_refused_with_both_lines() {
    let told =
        load(format!("{HEADER}a,5,1,1,1\nb,5,1,1,1\na,0,1,1,1\nA,5,1,1,1\na,5.0,1,2,2\n")).err().unwrap();
    assert_eq!(
        told,
        "t.csv: line 6: vm_id \"a\" has a second reading at t_seconds 5, the first is in line 2: leave one of them"
    );
}

#[test]
fn a_gzip_that_is_cut_off_or_damaged_says_so() {
    let rows: Vec<String> = (0..2000).map(|t| format!("a,{t},1024,{},\n", t * 7919)).collect();
    let text = HEADER.to_owned() + &rows.concat();
    let packed = gzip(text.as_bytes());
    let told = read(&packed[..packed.len() / 2]).unwrap_err();
    assert!(told.contains("cut off"), "{told}");
    let mut damaged = packed.clone();
    let last = damaged.len() - 6;
    damaged[last] ^= 0xff;
    let told = read(damaged).unwrap_err();
    assert!(told.contains("damaged"), "{told}");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let told = Trace::load("/nowhere/t.csv".as_ref()).err().unwrap().to_string();
    assert!(told.starts_with("/nowhere/t.csv: cannot open the trace file: "), "{told}");
}

#[test]
fn rows_from_elsewhere_are_held_to_the_same() {
    let fine = row("a", 0.0, Some(1), None);
    assert_eq!(Trace::from_rows("here", [fine.clone(), row("a", 5.0, None, None)]).unwrap().len(), 2);
    let cases = [
        (row("a", f64::NAN, None, None), "here: line 2: t_seconds is \"NaN\""),
        (row("a", -1.0, None, None), "here: line 2: t_seconds is \"-1\""),
        (row("a", 1.0, Some(u64::MAX), None), "here: line 2: used_bytes is"),
        (TraceRow { allocated_bytes: 0, ..fine.clone() }, "here: line 2: allocated_bytes is \"0\""),
        (fine.clone(), "here: line 2: vm_id \"a\" has a second reading at t_seconds 0"),
    ];
    for (wrong, message) in cases {
        let told = Trace::from_rows("here", [fine.clone(), wrong]).err().unwrap().to_string();
        assert!(told.starts_with(message), "{told}");
    }
    assert!(Trace::from_rows("here", []).err().unwrap().to_string().contains("no rows"));
}

#[test]
fn a_uuid_that_does_not_follow_from_the_name_is_written_itself() {
    let mut given = row("web", 0.0, None, None);
    given.vm = vm_uuid("other");
    let back = read(written(std::slice::from_ref(&given))).unwrap();
    assert_eq!(back[0].vm, given.vm);
}

fn any_row() -> impl Strategy<Value = TraceRow> {
    let bytes = 0..=i64::MAX as u64;
    (
        "[a-c,\"é -]{0,6}[a-z]",
        prop_oneof![(0u32..100).prop_map(f64::from), 0.0..1e11],
        1..=i64::MAX as u64,
        proptest::option::of(bytes.clone()),
        proptest::option::of(bytes),
    )
        .prop_map(|(name, t_seconds, allocated_bytes, used_bytes, rss_bytes)| {
            let name = name.trim();
            TraceRow {
                vm: vm_uuid(name),
                name: name.into(),
                t_seconds,
                allocated_bytes,
                used_bytes,
                rss_bytes,
            }
        })
}

fn rows_of(trace: &Trace) -> Vec<TraceRow> {
    let vms = trace.vms();
    let mut rows: Vec<TraceRow> = trace
        .readings()
        .map(|reading| TraceRow {
            vm: vms[reading.vm].vm,
            name: Arc::clone(&vms[reading.vm].name),
            t_seconds: reading.t_seconds,
            allocated_bytes: reading.allocated_bytes,
            used_bytes: reading.used_bytes,
            rss_bytes: reading.rss_bytes,
        })
        .collect();
    rows.sort_by(|a, b| a.t_seconds.total_cmp(&b.t_seconds).then(a.vm.cmp(&b.vm)));
    rows
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = load(&bytes);
        let _ = load([HEADER.as_bytes(), &bytes].concat());
        let _ = load([&[0x1f, 0x8b], &bytes[..]].concat());
    }

    #[test]
    fn no_cells_make_it_panic(text in "([a,\"0-9.eE+\\-\r\n]|NaN|,){0,200}") {
        if let Ok(trace) = load(HEADER.to_owned() + &text) {
            prop_assert!(trace.ticks().iter().map(|(_, readings)| readings.len()).sum::<usize>() == trace.len());
        }
    }

    #[test]
    fn what_is_written_is_read(rows in proptest::collection::vec(any_row(), 1..40)) {
        let text = written(&rows);
        prop_assert_eq!(&read(&text).unwrap(), &rows);
        prop_assert_eq!(&read(gzip(&text)).unwrap(), &rows);
    }

    #[test]
    fn the_order_of_rows_does_not_matter(rows in proptest::collection::vec(any_row(), 1..40), turn in 0usize..40) {
        let mut seen = std::collections::HashSet::new();
        let mut rows: Vec<_> = rows.into_iter().filter(|row| seen.insert((row.vm, row.t_seconds.to_bits()))).collect();
        let one = load(written(&rows)).unwrap();
        let turn = turn % rows.len();
        rows.rotate_left(turn);
        rows.reverse();
        let other = load(written(&rows)).unwrap();
        prop_assert_eq!(rows_of(&one), rows_of(&other));
        prop_assert_eq!(one.step(), other.step());
        prop_assert_eq!(one.duration(), other.duration());
    }
}
