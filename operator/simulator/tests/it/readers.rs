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

/// One after the other, without an end of their own.
fn times(us: &[u64]) -> Arrivals {
    Arrivals::Times { us: us.to_vec(), end_us: None }
}

fn counts(bin_ms: u64, counts: &[u32]) -> Arrivals {
    Arrivals::Counts { bin_ms, counts: counts.to_vec() }
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
    assert_eq!(services[0].arrivals, times(&[0, 4_250_000]), "in order");
    assert_eq!((services[0].name.as_str(), services[0].arrivals.end_us()), ("trace", 5_000_000));
    assert_eq!(read("10.5\n12\n").unwrap()[0].arrivals, times(&[0, 1_500_000]));
    assert_eq!(read("\u{feff}time\n\n10\n").unwrap()[0].arrivals, times(&[0]));
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
        ("f,1,2\n\"x,1,2\n", "line 2: has a quote that is not closed"),
        ("function,count\nf,3\n", "line 1: names no column of times"),
        ("3\n0\n4\n1\n5\n", "line 1: begins with numbers that rise and fall"),
        ("# of Monday\nf,1,2\nx,1,z\n", "line 3: minute 2 is 'z'"),
        ("ts,duration_ms\n1,-5\n", "line 2: '-5' is no duration"),
        ("start,end\n5,4\n", "line 2: ends at '4', before it came"),
        ("timestamp\n0\n1700000000\n", "line 3: is 19675 days after line 2, the earliest"),
        ("timestamp\n2023-11-16 18:15:46\nlater\n", "line 3: 'later' is no time"),
        ("timestamp\n", "and no call came before it"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:05:00,-1\n", "line 3: '-1' is no number of calls"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:05:00,many\n", "line 3: 'many' is no number"),
        ("timestamp,value\n2014-04-10 00:00:00,1\n2014-04-10 00:00:00,1\n", "two intervals are needed"),
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

#[test]
fn tables_are_read_however_they_are_written() {
    let calls = times(&[0, 1_500_000]);
    for text in [
        "\"time\",\"size\"\r\n\"10.5\",\"3\"\r\n\"12\",\"4\"\r\n",
        "# calls of a night\nsize;invoked_at\n3;10.5\n4;12\n",
        "ts\tsize\n12\t4\n10.5\t3\n",
        "timestamp_ms\n10500\n12000\n",
        "request_id,arrival_us\na,10500000\nb,12000000\nrequest_id,arrival_us\n",
        "1700000010500\n1700000012000\n",
        "1700000010500000\n1700000012000000\n",
        "time\n2023-11-14 22:13:30.500000+00:00\n2023-11-14T22:13:32Z\n",
    ] {
        let services = read(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((services.len(), &services[0].arrivals), (1, &calls), "{text:?}");
    }
    let five = counts(300_000, &[7, 3, 0, 4]);
    for text in [
        "timestamp,count\n2014-04-10 00:00:00,7\n2014-04-10 00:05:00,3\n2014-04-10 00:15:00,4\n",
        "timestamp;requests\n2014-04-10 00:15:00;4\n2014-04-10 00:05:00;3\n2014-04-10 00:00:00;7\n",
        ",datetime,invocations\n0,2014-04-10 00:00,7\n1,2014-04-10 00:05,3\n2,2014-04-10 00:15,4\n",
        "minute,count\n0,7\n5,3\n10,\n15,4\n",
        "1397088000,7\n1397088300,3\n1397088600,0\n1397088900,4\n",
        "time,qps\n0,0.0233\n300,0.01\n600,0\n900,0.0133\n",
    ] {
        let services = read(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((services.len(), &services[0].arrivals, services[0].series), (1, &five, true), "{text:?}");
    }
    assert_eq!(read("requests\n7\n3\n0\n").unwrap()[0].arrivals, counts(60_000, &[7, 3, 0]));
    assert_eq!(read("function,0,1,2\nf,7,2.0,\n").unwrap()[0].arrivals, counts(60_000, &[7, 2, 0]));
    assert_eq!(read("1,2,3,4\n7,3,0,1\n").unwrap()[0].arrivals, counts(60_000, &[7, 3, 0, 1]));
}

#[test]
fn a_column_of_functions_makes_services() {
    let ended = read("app,func,end_timestamp,duration\na,f,2.0,0.5\na,g,11.0,1.0\na,f,5.5,0.25\n").unwrap();
    assert_eq!(ended.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a/f", "a/g"]);
    let all = |us: &[u64]| Arrivals::Times { us: us.to_vec(), end_us: Some(9_000_000) };
    assert_eq!((&ended[0].arrivals, &ended[1].arrivals), (&all(&[0, 3_750_000]), &all(&[8_500_000])));
    assert_eq!(ended[1].arrivals.end_us(), 9_000_000, "all end together");
    let durations = ended[0].durations.as_ref().unwrap();
    assert_eq!((durations.at(0.1), durations.at(0.9)), (250_000.0, 500_000.0));

    let counted = read("function,minute,count\na,0,3\nb,1,1\na,2,4\n").unwrap();
    assert_eq!(counted[0].arrivals, counts(60_000, &[3, 0, 4]));
    assert_eq!((&counted[1].arrivals, counted[1].series), (&counts(60_000, &[0, 1, 0]), false));

    let columns = read("Time,cart,search\n0,1,2\n60,,3\n120,4,5\n").unwrap();
    assert_eq!(columns.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["cart", "search"]);
    assert_eq!(
        (&columns[0].arrivals, &columns[1].arrivals),
        (&counts(60_000, &[1, 0, 4]), &counts(60_000, &[2, 3, 5]))
    );

    let spans = read("start_time,end_time\n10,10.5\n20,21\n").unwrap();
    assert_eq!(spans[0].durations.as_ref().unwrap().at(0.9), 1_000_000.0);
}

fn day(rows: &[(&str, u32)]) -> String {
    let minutes: Vec<String> = (1..=1_440).map(|minute| minute.to_string()).collect();
    let row = |(name, calls): &(&str, u32)| format!("{name},http{}\n", format!(",{calls}").repeat(1_440));
    format!("HashFunction,Trigger,{}\n{}", minutes.join(","), rows.iter().map(row).collect::<String>())
}

#[test]
fn days_that_follow_one_another_are_one_trace() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "calls.d09.csv", &day(&[("a", 1), ("b", 2)]));
    written(folder.path(), "calls.d10.csv", &day(&[("c", 3), ("a", 4), ("a", 5)]));
    written(folder.path(), "calls.d12.csv", &day(&[("a", 6)]));
    let trace = Trace::open(folder.path()).unwrap();
    let services: Vec<Service> = trace.services().map(Result::unwrap).collect();
    assert_eq!(services.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "a", "a"]);
    let ends = |service: &Service| match &service.arrivals {
        Arrivals::Counts { counts, .. } => (counts.len(), counts[0], counts[counts.len() - 1]),
        Arrivals::Times { .. } => panic!("{} has times", service.name),
    };
    let days: Vec<_> = services.iter().map(ends).collect();
    assert_eq!(days, [(2_880, 1, 4), (2_880, 2, 0), (2_880, 0, 3), (2_880, 0, 5), (1_440, 6, 6)]);
    assert!(trace.told().iter().any(|told| told.contains("begins a trace of 2 days")), "{:?}", trace.told());

    let parts = tempfile::tempdir().unwrap();
    written(parts.path(), "part-0.csv", &day(&[("a", 1), ("b", 2)]));
    written(parts.path(), "part-1.csv", &day(&[("c", 3)]));
    let services: Vec<Service> = Trace::open(parts.path()).unwrap().services().map(Result::unwrap).collect();
    assert_eq!(services.iter().map(|one| one.arrivals.end_us()).collect::<Vec<_>>(), [86_400_000_000; 3]);
}

#[test]
fn what_is_no_trace_is_passed_over_beside_one_and_told() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "calls.csv", "timestamp,value,host\n0,1,h\n60,2,h\n120,\n240,1,h\n240,1,h\n");
    written(folder.path(), "labels.csv", "kind,colour\na,b\n");
    written(folder.path(), "LICENSE.txt", "Use it as you like.\n");
    written(folder.path(), "empty.csv", "");
    fs::write(folder.path().join("more.csv.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
    let trace = Trace::open(folder.path()).unwrap();
    let services: Vec<Service> = trace.services().map(Result::unwrap).collect();
    assert_eq!((services.len(), &services[0].arrivals), (1, &counts(60_000, &[1, 2, 0, 0, 2])));
    let told = trace.told().join("\n");
    for expected in [
        "labels.csv is passed over, for it begins with 'kind'",
        "LICENSE.txt is passed over",
        "empty.csv is passed over, for it is missing",
        "more.csv.gz is passed over, for it is compressed",
        "calls.csv has columns that are passed over: host",
        "calls.csv has a row too many for an interval 1 times",
        "calls.csv has no row for 2 of 5 intervals",
        "calls.csv counts that are empty are passed over (1)",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let alone = Trace::open(&folder.path().join("more.csv.gz")).unwrap_err().to_string();
    assert!(alone.contains("line 1: is compressed; unpack it first, by gzip -d"), "{alone}");
    #[cfg(unix)]
    assert!(matches!(Trace::open(Path::new("/dev/null")), Err(TraceError::Once(_))));
}
