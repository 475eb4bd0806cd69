//! Writes entries into the ledger of a folder until it is killed, four at a time, and prints the place of each once that
//! is durable: what tests kill in the middle. Arguments: the folder, after how many bytes
//! a file is full, and how many times four entries; without end when that is not given.

use std::{env, time::Duration};

use echotune_gateway::metering::{CallOutcome, Metering, MeteringConfig, Usage};

fn usage(key: String) -> Usage {
    Usage {
        idempotency_key: key,
        tenant: "tenant".to_owned(),
        caller: "user/tenant/writer".to_owned(),
        server: "notes".to_owned(),
        tool: "add".to_owned(),
        era: "2026-07-28".to_owned(),
        outcome: CallOutcome::Ok,
        duration: Duration::from_millis(3),
        bytes_in: 10,
        bytes_out: 20,
        trace_id: String::new(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().ok_or("the folder is missing")?;
    let mut config = MeteringConfig::new(folder);
    config.file_bytes = arguments.next().ok_or("the number of bytes is missing")?.parse()?;
    let rounds = arguments.next().map_or(Ok(u64::MAX), |rounds| rounds.parse())?;
    let ledger = Metering::open(config)?;
    for call in 0..rounds {
        let four = [0, 1, 2, 3].map(|part| ledger.append(usage(format!("{call} {part}"))));
        for place in futures::future::join_all(four).await {
            println!("place {}", place?);
        }
    }
    ledger.close().await;
    Ok(())
}
