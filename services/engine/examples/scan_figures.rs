//! Figures of retrieval on generated catalogues: latencies of the exact scan one by one, throughput of
//! batches, and recall, throughput and time to build of the partition.
//!
//! `cargo run --release -p echotune-engine --example scan_figures [all|small|large|skewed|even] [items]`, where
//! the items are those of the large catalogues: 1,000,000 if not told.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use echotune_engine::{
    dense::{Matrix, dot},
    scan::{Audit, Partition, PartitionOptions, Request, Scan, ScanError},
};

#[path = "../benches/support/world.rs"]
mod world;

const RANK: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let part = std::env::args().nth(1).unwrap_or_else(|| "all".into());
    let items: usize = std::env::args().nth(2).map_or(Ok(1_000_000), |items| items.parse())?;
    println!("{part}: {} threads", rayon::current_num_threads());
    if matches!(part.as_str(), "small" | "all") {
        small("clustered", &Scan::new(world::world(40_981, RANK, 1, 0.35))?, &world::world(4_096, RANK, 2, 0.0))?;
        small("normal", &Scan::new(world::normal(40_981, RANK, 1))?, &world::normal(4_096, RANK, 2))?;
    }
    if matches!(part.as_str(), "large" | "all") {
        large_scan("normal", world::normal(items, RANK, 1), &world::normal(1_000, RANK, 2))?;
    }
    let queries = world::world(1_000, RANK, 2, 0.0);
    for (wanted, popularity) in [("skewed", 0.35), ("even", 0.0)] {
        if part == wanted || part == "all" {
            let name = format!("clustered, {wanted} norms");
            let scan = large_scan(&name, world::world(items, RANK, 1, popularity), &queries)?;
            partition(&format!("{name} {items} × {RANK}, top 100"), &scan, &queries)?;
        }
    }
    Ok(())
}

fn large_scan(name: &str, items: Matrix, queries: &Matrix) -> Result<Scan, Box<dyn std::error::Error>> {
    let (title, start) = (format!("{name} {} × {RANK}", items.rows()), Instant::now());
    let scan = Scan::new(items)?;
    println!("{title}: scan made in {:.2?}", start.elapsed());
    single(&format!("{title} exact, top 20"), &scan, queries, 20, 200)?;
    single(&format!("{title} exact, top 100"), &scan, queries, 100, 200)?;
    Ok(scan)
}

fn small(name: &str, scan: &Scan, queries: &Matrix) -> Result<(), Box<dyn std::error::Error>> {
    let title = format!("{name} {} × {RANK}, top 20", scan.factors().rows());
    let sorted = brute(scan.factors(), queries.row(0), 20);
    assert_eq!(scan.best(&Request::new(queries.row(0), 20))?, sorted, "exact");
    single(&title, scan, queries, 20, 4_096)?;
    let extra: Vec<(u32, f32)> = (0..20_000).map(|item| (item * 2, (item % 97) as f32 * 1e-3)).collect();
    let requests = |row| Request::new(queries.row(row), 20).extra(echotune_engine::scan::Extra::Sparse(&extra));
    latencies(
        &format!("{title}, 20,000 addends"),
        (0..1_000).map(|row| timed(|| scan.best(&requests(row)).map(drop))),
    )?;
    let requests: Vec<Request<'_>> = (0..queries.rows()).map(|row| Request::new(queries.row(row), 20)).collect();
    assert_eq!(scan.best_of_each(&requests)?[0], sorted, "exact");
    let told = pace(8 * requests.len(), || (0..8).try_for_each(|_| scan.best_of_each(&requests).map(drop)))?;
    println!("{title}, batched: {told}");
    Ok(())
}

/// Recall and throughput of the partition, on one thread.
fn partition(title: &str, scan: &Scan, queries: &Matrix) -> Result<(), Box<dyn std::error::Error>> {
    let (start, before) = (Instant::now(), processor());
    let partition = Partition::new(scan.factors(), PartitionOptions::default())?;
    let spent = processor().zip(before).map_or(f64::NAN, |(after, before)| after - before);
    let (clusters, made) = (partition.clusters(), start.elapsed());
    println!("{title}: partition of {clusters} clusters made in {made:.2?}, {spent:.1} s of processor time");
    let requests: Vec<Request<'_>> = (0..queries.rows()).map(|row| Request::new(queries.row(row), 100)).collect();
    let exact = scan.best_of_each(&requests)?;
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for effort in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000] {
        let mut found = Vec::new();
        let told = pace(requests.len(), || {
            found = one.install(|| partition.best_of_each(&requests, effort))?;
            Ok(())
        })?;
        let mut audit = Audit::new(1.0);
        exact.iter().zip(&found).for_each(|(exact, found)| audit.compare(found, exact));
        let recall = audit.recall(0.05).expect("many requests").mean;
        println!("{title}: {effort} items looked at, recall {recall:.4}, {told} on one thread");
    }
    Ok(())
}

fn brute(items: &Matrix, query: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip((0..items.rows()).map(|row| dot(query, items.row(row)))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(count);
    all
}

/// A time, and whether another process took the processor meanwhile.
fn timed<E>(run: impl FnOnce() -> Result<(), E>) -> Result<(Duration, bool), E> {
    let before = interruptions();
    let start = Instant::now();
    run()?;
    Ok((start.elapsed(), interruptions() != before))
}

/// How often the calling thread was made to wait for others, where the system tells.
fn interruptions() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// Seconds of processor time of this process, where the system tells.
fn processor() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(") ").next()?.split(' ').skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / 100.0)
}

/// Queries per second by the clock, and per second of processor time.
fn pace(queries: usize, run: impl FnOnce() -> Result<(), ScanError>) -> Result<String, ScanError> {
    let (start, before) = (Instant::now(), processor());
    run()?;
    let clock = queries as f64 / start.elapsed().as_secs_f64();
    let spent = processor().zip(before).map(|(after, before)| after - before).filter(|spent| *spent > 0.0);
    let spent =
        spent.map_or(String::new(), |spent| format!(", {:.0} per second of processor time", queries as f64 / spent));
    Ok(format!("{clock:.0} queries/s{spent}"))
}

fn single(
    title: &str,
    scan: &Scan,
    queries: &Matrix,
    count: usize,
    runs: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    for row in 0..10 {
        scan.best(&Request::new(queries.row(row), count))?;
    }
    latencies(title, (0..runs).map(|row| timed(|| scan.best(&Request::new(queries.row(row), count)).map(drop))))
}

fn latencies<E: std::error::Error + 'static>(
    title: &str,
    times: impl Iterator<Item = Result<(Duration, bool), E>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let times = times.collect::<Result<Vec<_>, _>>()?;
    let told = |which: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        if let (Some(half), Some(last)) = (at(50), at(99)) {
            println!("{title}, {which} {}: p50 {half:.3?}, p99 {last:.3?}", times.len());
        }
    };
    told("all", times.iter().map(|time| time.0).collect());
    // Of what other threads did, this one knows nothing.
    if times.iter().any(|time| time.1) {
        told("uninterrupted", times.iter().filter(|time| !time.1).map(|time| time.0).collect());
    }
    Ok(())
}
