//! The logs of regions: each is the embedded log of its region with copies of the others', which a task for each pair
//! brings over the simulated network, at least once.

use std::time::Duration;

use async_trait::async_trait;
use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{
    Delivered, EmbeddedEventLog, EventLog, LogError, Member, Positions, Reader, Record, dead::is_own,
};
use echotune_kit::embedded::{Batch, Db, Key, StoreError, Table, get};
use echotune_testbed::Region;
use futures::future::select_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use turmoil::net::{TcpListener, TcpStream};

use crate::{draw::SharedDraw, planted::Planted};

/// Region → the next position of its log that is copied.
const COPIED: Table = Table("simulation.copied");
const PORT: u16 = 7_000;
const BATCH: usize = 16;
/// How often a log that has nothing new says so, and after how long without a word it is asked again.
const BEAT: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_millis(900);

/// The topic that holds what was copied of another region's.
pub(crate) fn copy_of(region: Region, topic: &str) -> String {
    format!("{region}.{topic}")
}

/// The log of a region.
#[derive(Clone)]
pub(crate) struct RegionLog {
    pub(crate) own: EmbeddedEventLog,
    pub(crate) region: Region,
    pub(crate) planted: Option<Planted>,
}

impl RegionLog {
    /// A topic and its copies.
    pub(crate) fn topics(&self, topic: &str) -> Vec<String> {
        let others = Region::ALL.into_iter().filter(|region| *region != self.region && !is_own(topic));
        [topic.to_owned()].into_iter().chain(others.map(|region| copy_of(region, topic))).collect()
    }
}

#[async_trait]
impl EventLog for RegionLog {
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.own.append(topic, records).await
    }

    async fn starts(&self, topic: &str) -> Result<Positions, LogError> {
        let mut all = Positions::default();
        for topic in self.topics(topic) {
            self.own.starts(&topic).await?.iter().for_each(|(stream, next)| all.set(stream, next));
        }
        Ok(all)
    }

    async fn ends(&self, topic: &str) -> Result<Positions, LogError> {
        let mut all = Positions::default();
        for topic in self.topics(topic) {
            self.own.ends(&topic).await?.iter().for_each(|(stream, next)| all.set(stream, next));
        }
        Ok(all)
    }

    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        let mut readers = Vec::new();
        for topic in self.topics(topic) {
            readers.push(self.own.read_from(&topic, from.clone()).await?);
        }
        Ok(Box::new(Merged { readers }))
    }

    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.read_from(topic, from).await
    }

    async fn append_sealed(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.own.append_sealed(topic, records).await
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError> {
        let mut readers = Vec::new();
        for topic in self.topics(topic) {
            readers.push(self.own.join(&topic, group).await?);
        }
        let commits_first = self.planted == Some(Planted::CommitsBeforeEffect);
        Ok(Box::new(MergedMember { merged: Merged { readers }, commits_first }))
    }

    fn region_of(&self, stream: &str) -> String {
        let other = Region::ALL.into_iter().find(|region| stream.starts_with(&copy_of(*region, "")));
        other.unwrap_or(self.region).to_string()
    }

    fn system(&self) -> &'static str {
        "simulation"
    }

    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError> {
        let mut all = Positions::default();
        for topic in self.topics(topic) {
            self.own.committed(&topic, group).await?.iter().for_each(|(stream, next)| all.set(stream, next));
        }
        Ok(all)
    }

    async fn forget(&self, topic: &str, key: &str) -> Result<(), LogError> {
        self.own.forget(topic, key).await
    }
}

/// Readers of several streams as one, in turns.
struct Merged<R: ?Sized> {
    readers: Vec<Box<R>>,
}

impl<R: Reader + ?Sized> Merged<R> {
    async fn next_of(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        self.readers.rotate_left(1);
        // One that is cut off has read nothing.
        select_all(self.readers.iter_mut().map(|reader| reader.next(limit))).await.0
    }
}

#[async_trait]
impl Reader for Merged<dyn Reader> {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        self.next_of(limit).await
    }
}

struct MergedMember {
    merged: Merged<dyn Member>,
    commits_first: bool,
}

#[async_trait]
impl Reader for MergedMember {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        let records = self.merged.next_of(limit).await?;
        if self.commits_first {
            let mut done = Positions::default();
            records.iter().for_each(|one| done.pass(one));
            self.commit(&done).await?;
        }
        Ok(records)
    }
}

#[async_trait]
impl Member for MergedMember {
    async fn commit(&mut self, done: &Positions) -> Result<(), LogError> {
        for member in &mut self.merged.readers {
            member.commit(done).await?;
        }
        Ok(())
    }
}

/// Gives what is on the log to whoever copies it, until the host is gone.
pub(crate) async fn give(log: EmbeddedEventLog) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await.map_err(told)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(told)?;
        let log = log.clone();
        // Whoever hears nothing asks again.
        tokio::spawn(async move { drop(give_to(stream, &log).await) });
    }
}

async fn give_to(mut stream: TcpStream, log: &EmbeddedEventLog) -> Result<(), String> {
    let from = stream.read_u64().await.map_err(told)?;
    let mut reader = log.read_from(USERS_TOPIC, Positions::of(USERS_TOPIC, from)).await.map_err(told)?;
    loop {
        let records = match timeout(BEAT, reader.next(BATCH)).await {
            Ok(records) => records.map_err(told)?,
            Err(_) => Vec::new(),
        };
        let mut frame = u32::try_from(records.len()).expect("few").to_be_bytes().to_vec();
        for Delivered { position, record, .. } in records {
            frame.extend_from_slice(&position.to_be_bytes());
            frame.push(u8::from(record.is_lasting));
            for part in [record.key.as_bytes(), &record.value] {
                frame.extend_from_slice(&u32::try_from(part.len()).expect("short").to_be_bytes());
                frame.extend_from_slice(part);
            }
        }
        timeout(SILENCE, stream.write_all(&frame)).await.map_err(told)?.map_err(told)?;
    }
}

/// How far the log of a region was copied.
pub(crate) fn copied(db: &Db, of: Region) -> u64 {
    let read = db.read(|view| get::<u64>(view, COPIED, &Key::new().text(of.name())));
    read.expect("the store can be read").unwrap_or(0)
}

/// Copies the log of another region, until the host is gone.
pub(crate) async fn copy(log: RegionLog, db: Db, of: Region, draw: SharedDraw) -> Result<(), String> {
    loop {
        // The way there may be cut, and the region away.
        drop(copy_some(&log, &db, of).await);
        sleep(draw.ms(50, 300)).await;
    }
}

async fn copy_some(log: &RegionLog, db: &Db, of: Region) -> Result<(), String> {
    let connect = TcpStream::connect((of.name(), PORT));
    let mut stream = timeout(SILENCE, connect).await.map_err(told)?.map_err(told)?;
    stream.write_all(&copied(db, of).to_be_bytes()).await.map_err(told)?;
    let topic = copy_of(of, USERS_TOPIC);
    loop {
        let (next, records) = timeout(SILENCE, read_frame(&mut stream)).await.map_err(told)??;
        if records.is_empty() {
            continue;
        }
        let lasting = records.iter().filter(|record| record.is_lasting);
        let erased: Vec<_> = lasting.map(|record| record.key.clone()).collect();
        if log.planted == Some(Planted::CopiesAfterItsPosition) {
            keep_copied(db, of, next).await?;
        }
        log.own.append(&topic, records).await.map_err(told)?;
        for key in erased {
            // As the key of what is sealed is gone everywhere.
            log.own.forget(&topic, &key).await.map_err(told)?;
        }
        keep_copied(db, of, next).await?;
    }
}

async fn keep_copied(db: &Db, of: Region, next: u64) -> Result<(), String> {
    let kept = db.write(move |_| {
        let mut batch = Batch::default();
        batch.put(COPIED, Key::new().text(of.name()), &next);
        Ok::<_, StoreError>(((), batch))
    });
    kept.await.map_err(told)
}

async fn read_frame(stream: &mut TcpStream) -> Result<(u64, Vec<Record>), String> {
    let (mut next, mut records) = (0, Vec::new());
    for _ in 0..stream.read_u32().await.map_err(told)? {
        next = stream.read_u64().await.map_err(told)? + 1;
        let is_lasting = stream.read_u8().await.map_err(told)? == 1;
        let key = String::from_utf8(read_part(stream).await?).map_err(told)?;
        let value = read_part(stream).await?;
        records.push(Record { key, value, is_lasting, ..Record::default() });
    }
    Ok((next, records))
}

async fn read_part(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let length = stream.read_u32().await.map_err(told)?;
    let mut part = vec![0; usize::try_from(length).expect("short")];
    stream.read_exact(&mut part).await.map_err(told)?;
    Ok(part)
}

pub(crate) fn told(cause: impl std::fmt::Display) -> String {
    cause.to_string()
}
