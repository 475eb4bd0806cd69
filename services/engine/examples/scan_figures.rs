//! Figures of retrieval on generated catalogues: latencies of the exact scan one by one, throughput of
//! batches, and recall, throughput and time to build of the partition.
//!
//! `cargo run --release -p echotune-engine --example scan_figures [items of the large catalogue]`
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use echotune_engine::{
    dense::{Matrix, dot},
    scan::{Audit, Partition, PartitionOptions, Request, Scan},
};

#[path = "../benches/support/world.rs"]
mod world;

const RANK: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let large: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |items| items.parse())?;
    println!("{} threads", rayon::current_num_threads());
    for (name, items, queries) in [
        ("clustered", world::world(40_981, RANK, 1, 0.35), world::world(4_096, RANK, 2, 0.0)),
        ("normal", world::normal(40_981, RANK, 1), world::normal(4_096, RANK, 2)),
    ] {
        small(name, &Scan::new(items)?, &queries)?;
    }
    for (name, items, queries) in [
        ("clustered", world::world(large, RANK, 1, 0.35), world::world(1_000, RANK, 2, 0.0)),
        ("normal", world::normal(large, RANK, 1), world::normal(1_000, RANK, 2)),
    ] {
        let start = Instant::now();
        let scan = Scan::new(items)?;
        println!("{name} {large} × {RANK}: scan made in {:.2?}", start.elapsed());
        single(&format!("{name} {large} × {RANK} exact, top 20"), &scan, &queries, 20, 200)?;
        single(&format!("{name} {large} × {RANK} exact, top 100"), &scan, &queries, 100, 200)?;
        partition(&format!("{name} {large} × {RANK}, top 100"), &scan, &queries)?;
    }
    Ok(())
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
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let answers = scan.best_of_each(&requests)?;
        best = best.min(start.elapsed());
        assert_eq!(answers[0], sorted, "exact");
    }
    println!("{title}, batched: {:.0} queries/s", requests.len() as f64 / best.as_secs_f64());
    Ok(())
}

/// Recall and throughput of the partition, on one thread.
fn partition(title: &str, scan: &Scan, queries: &Matrix) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let partition = Partition::new(scan.factors(), PartitionOptions::default())?;
    println!("{title}: partition of {} clusters made in {:.2?}", partition.clusters(), start.elapsed());
    let requests: Vec<Request<'_>> = (0..queries.rows()).map(|row| Request::new(queries.row(row), 100)).collect();
    let exact = scan.best_of_each(&requests)?;
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for effort in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000] {
        let start = Instant::now();
        let found = one.install(|| partition.best_of_each(&requests, effort))?;
        let pace = requests.len() as f64 / start.elapsed().as_secs_f64();
        let mut audit = Audit::new(1.0);
        exact.iter().zip(&found).for_each(|(exact, found)| audit.compare(found, exact));
        let recall = audit.recall(0.05).expect("many requests").mean;
        println!("{title}: {effort} items looked at, recall {recall:.4}, {pace:.0} queries/s on one thread");
    }
    Ok(())
}

fn brute(items: &Matrix, query: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip((0..items.rows()).map(|row| dot(query, items.row(row)))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(count);
    all
}

fn timed<E>(run: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
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
    times: impl Iterator<Item = Result<Duration, E>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut times = times.collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("{title}: p50 {:.3?}, p99 {:.3?}", at(50), at(99));
    Ok(())
}
