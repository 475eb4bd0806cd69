//! Traces: what is read, and what a bad line is told.

use std::{fs, path::Path};

use echotune_simulator::trace::{Arrivals, Service, Trace, TraceError};

fn written(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a folder of the test's own");
}

fn read(text: &str) -> Result<Vec<Service>, TraceError> {
    let folder = tempfile::tempdir().expect("a folder of the test's own");
    written(folder.path(), "trace.csv", text);
    Trace::open(&folder.path().join("trace.csv"))?.services().collect()
}

#[test]
fn counts_per_minute_with_durations_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "inv.csv", "HashOwner,HashFunction,1,2,3\no,f,1,0,7\no,g,0,0,0\n");
    written(folder.path(), "mem.csv", "HashApp,AverageAllocatedMb\na,4\n");
    written(folder.path(), "README.md", "not a trace");
    let percentiles = "percentile_Average_0,percentile_Average_1,percentile_Average_25,percentile_Average_50,\
                       percentile_Average_75,percentile_Average_99,percentile_Average_100";
    written(folder.path(), "run.csv", &format!("HashFunction,Average,{percentiles}\nf,8.0,1,2,3,4,5,6,7\n"));
    let services: Vec<Service> = Trace::open(folder.path()).unwrap().services().map(Result::unwrap).collect();
    assert_eq!(services.len(), 2);
    assert_eq!(services[0].name, "f");
    assert_eq!(services[0].arrivals, Arrivals::Counts { bin_ms: 60_000, counts: vec![1, 0, 7] });
    assert_eq!(services[0].durations.as_ref().unwrap().at(0.5), 4_000.0);
    assert!(services[1].durations.is_none() && !services[0].series);
    assert_eq!(services[0].arrivals.end_us(), 180_000_000);
}

#[test]
fn a_time_per_call_with_and_without_a_header() {
    let timed = "TIMESTAMP,Tokens\r\n2023-11-16 18:15:50.5,3\r\n2023-11-16 18:15:46.25,4\r\n";
    let services = read(timed).unwrap();
    assert_eq!(services[0].arrivals, Arrivals::Times(vec![0, 4_250_000]), "in order");
    assert_eq!((services[0].name.as_str(), services[0].arrivals.end_us()), ("trace", 5_000_000));
    assert_eq!(read("10.5\n12\n").unwrap()[0].arrivals, Arrivals::Times(vec![0, 1_500_000]));
    assert_eq!(read("\u{feff}time\n\n10\n").unwrap()[0].arrivals, Arrivals::Times(vec![0]));
}

#[test]
fn a_series_with_a_hole_and_a_clock_that_was_set() {
    let series = "timestamp,value\n2014-04-10 00:00:00,94.0\n2014-04-10 00:05:00,5.6\n2014-04-10 00:15:10,1\n";
    let services = read(series).unwrap();
    assert_eq!(services[0].arrivals, Arrivals::Counts { bin_ms: 300_000, counts: vec![94, 6, 0, 1] });
    assert!(services[0].series);
}

#[test]
fn faults_name_the_file_the_line_and_the_way_out() {
    let cases = [
        ("", "line 1: is missing"),
        ("a,b\n1,2\n", "line 1: begins with 'a', which is no header that is known"),
        ("f,1,2,4\nx,1,1,1\n", "line 1: begins with 'f'"),
        ("f,1,2\nx,1,2\ny,1\n", "line 3: has 1 minutes; the header has 2"),
        ("f,1,2\nx,1,-2\n", "line 2: minute 2 is '-2'; a number of calls is needed"),
        ("f,1,2\nx,1,2,3\n", "line 2: has 3 minutes; the header has 2"),
        ("f,1,2\n\"x\",1,2\n", "line 2: has quotes"),
        ("timestamp\n2023-11-16 18:15:46\nlater\n", "line 3: 'later' is no time"),
        ("timestamp\n", "and no call came before it"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:05:00,-1\n", "line 3: '-1' is no number of calls"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:05:00,many\n", "line 3: 'many' is no number"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:00:00,1\n", "line 3: is not after the line before"),
        (
            "timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:05:00,1\n2014-04-10 00:10:00,1\n2014-04-10 00:05:00,1\n",
            "line 5: goes back in time",
        ),
        (
            "timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:00:01,1\n2034-04-10 00:00:00,1\n",
            "line 4: is more than 16777216 intervals after the first",
        ),
        ("timestamp,value\n2014-04-10 00:00:00,1\n", "two intervals are needed"),
    ];
    for (text, expected) in cases {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("trace.csv"), "{text:?}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = [b"f,1\nx,".as_slice(), &[0xff, b'\n']].concat();
    fs::write(folder.path().join("bytes.csv"), bytes).unwrap();
    let trace = Trace::open(folder.path()).unwrap();
    let found: Result<Vec<Service>, _> = trace.services().collect();
    assert!(found.unwrap_err().to_string().contains("bytes.csv, line 2: is not UTF-8 text"));
}

#[test]
fn durations_that_are_wrong_are_told_too() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.csv", "f,1\nx,1\n");
    written(folder.path(), "b.csv", "f,percentile_Average_50\nx,1\n");
    let error = Trace::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.csv, line 1: has no column percentile_Average_0"), "{error}");
}

#[test]
fn what_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Trace::open(&folder.path().join("none")), Err(TraceError::NotFound(_))));
    assert!(matches!(Trace::open(folder.path()), Err(TraceError::Empty(_))));
}
