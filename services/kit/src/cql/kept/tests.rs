use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use echotune_model::ErrorKind;
use proptest::prelude::*;

use super::{
    backlog::{Backlog, Round},
    code::{bucket, decode, encode, plain, wrap},
    schema::BUCKETS,
};
use crate::embedded::Row;

const TABLES: [&str; 3] = ["a", "bb", ""];

fn row() -> impl Strategy<Value = Row> {
    let parts = (0..TABLES.len(), prop::collection::vec(0..4_u8, 0..3), prop::option::of(any::<Vec<u8>>()));
    parts.prop_map(|(table, key, value)| Row { table: Cow::Borrowed(TABLES[table]), key, value })
}

/// A group: the last word on each key.
fn group() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(row(), 0..8).prop_map(|rows| {
        let last: BTreeMap<_, _> = rows.into_iter().map(|row| ((row.table.clone(), row.key.clone()), row)).collect();
        last.into_values().collect()
    })
}

/// A table and a key.
type Place = (String, Vec<u8>);
/// What a store holds.
type Held = BTreeMap<Place, Vec<u8>>;

fn make(held: &mut Held, rows: &[Row]) {
    for row in rows {
        let key = (row.table.to_string(), row.key.clone());
        match &row.value {
            Some(value) => drop(held.insert(key, value.clone())),
            None => drop(held.remove(&key)),
        }
    }
}

/// Rows as servers keep them: each with the time of its last write, those that were removed too.
#[derive(Default)]
struct Servers {
    rows: HashMap<Place, (i64, Option<Vec<u8>>)>,
    checkpoint: i64,
}

impl Servers {
    fn write(&mut self, row: &Row, at: i64) {
        let kept = self.rows.entry((row.table.to_string(), row.key.clone())).or_default();
        if at >= kept.0 {
            *kept = (at, row.value.clone());
        }
    }

    /// What the next process finds in the journal, and in the rows on which that has no word.
    fn load(&self, journal: &[Vec<Row>]) -> Held {
        let mut backlog = Backlog::default();
        for (seq, rows) in (1..).zip(journal).skip(usize::try_from(self.checkpoint).expect("small")) {
            backlog.add(seq, rows.clone());
        }
        let stored = self.rows.iter().map(|((table, key), (_, value))| Row {
            table: Cow::Owned(table.clone()),
            key: key.clone(),
            value: value.clone(),
        });
        let rows = stored.filter(|row| !backlog.has(row)).chain(backlog.rows());
        rows.filter_map(|row| Some(((row.table.into_owned(), row.key), row.value?))).collect()
    }
}

/// What happens next: a group is appended, a round is taken and so many of its rows are written (all and the checkpoint
/// when there are no more), or the process ends and another takes over, while what it had taken is still on its way.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Row>),
    Write(usize),
    TakeOver,
    Late(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => group().prop_map(Step::Append),
        3 => (0..12_usize).prop_map(Step::Write),
        1 => Just(Step::TakeOver),
        1 => (0..12_usize).prop_map(Step::Late),
    ]
}

/// A process: what it has not taken, and what of a round it has not written.
#[derive(Default)]
struct Process {
    backlog: Backlog,
    round: Option<Round>,
}

impl Process {
    fn write(&mut self, servers: &mut Servers, some: usize) {
        let Self { backlog, round } = self;
        let round = round.get_or_insert_with(|| backlog.take());
        let left = round.rows.len().saturating_sub(some);
        round.rows.drain(left..).for_each(|row| servers.write(&row, round.upto));
        if left == 0 {
            servers.checkpoint = servers.checkpoint.max(round.upto);
            self.round = None;
            self.backlog.written();
        }
    }
}

proptest! {
    #[test]
    fn rows_and_the_journal_after_the_checkpoint_are_the_store(steps in prop::collection::vec(step(), 1..60)) {
        let (mut servers, mut journal, mut model) = (Servers::default(), Vec::<Vec<Row>>::new(), Held::new());
        let (mut now, mut before) = (Process::default(), Process::default());
        for step in steps {
            match step {
                Step::Append(rows) => {
                    make(&mut model, &rows);
                    journal.push(rows.clone());
                    now.backlog.add(i64::try_from(journal.len()).expect("small"), rows);
                }
                Step::Write(some) => now.write(&mut servers, some),
                Step::Late(some) => before.write(&mut servers, some),
                Step::TakeOver => {
                    journal.push(Vec::new());
                    before = std::mem::take(&mut now);
                    for (seq, rows) in (1..).zip(&journal).skip(usize::try_from(servers.checkpoint).expect("small")) {
                        now.backlog.add(seq, rows.clone());
                    }
                }
            }
            prop_assert_eq!(&servers.load(&journal), &model);
        }
    }

    #[test]
    fn a_group_is_read_as_it_was_written(rows in group()) {
        let mut read = decode(&encode(&rows)).expect("read");
        read.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn a_group_that_is_cut_short_or_odd_is_no_group_and_no_fault(rows in group(), cut: prop::sample::Index, odd: Vec<u8>) {
        let bytes = encode(&rows);
        let cut = &bytes[..cut.index(bytes.len())];
        // Cut between two rows it is the group of the first.
        if let Ok(read) = decode(cut) {
            prop_assert!(rows.starts_with(&read));
        }
        drop(decode(&odd));
    }

    #[test]
    fn bytes_wait_until_they_are_written(groups in prop::collection::vec(group(), 0..8)) {
        let mut backlog = Backlog::default();
        let all: usize = groups.iter().flatten().map(Row::bytes).sum();
        groups.into_iter().zip(1..).for_each(|(rows, seq)| backlog.add(seq, rows));
        prop_assert_eq!(backlog.bytes(), all);
        let round = backlog.take();
        prop_assert!(round.rows.iter().map(Row::bytes).sum::<usize>() <= all);
        backlog.add(9, vec![Row { table: Cow::Borrowed("a"), key: Vec::new(), value: None }]);
        prop_assert!(backlog.bytes() > all, "until they are written");
        backlog.written();
        prop_assert_eq!(backlog.bytes(), size_of::<Row>());
    }
}

#[test]
fn keys_and_values_tell_their_format() {
    assert_eq!(plain("a key", &wrap(b"")).expect("read"), b"");
    assert_eq!(plain("a key", &wrap(b"x")).expect("read"), b"x");
    for bad in [&b""[..], b"\x09x"] {
        assert_eq!(plain("a key", bad).expect_err("damaged").kind(), ErrorKind::DataLoss);
        assert_eq!(decode(bad).expect_err("damaged").kind(), ErrorKind::DataLoss);
    }
}

#[test]
fn buckets_stay_what_they_are_and_share_rows_evenly() {
    let told = [("recommendations.tallies", &b"a"[..]), ("recommendations.tallies", b"b"), ("", b"")];
    assert_eq!(told.map(|(table, key)| bucket(table, key)), [650, 867, 659]);
    let mut held = vec![0; usize::try_from(BUCKETS).expect("small")];
    for n in 0..100 * u64::from(BUCKETS.unsigned_abs()) {
        held[usize::try_from(bucket("t", &n.to_be_bytes())).expect("in range")] += 1;
    }
    assert!(held.iter().all(|rows| (40..200).contains(rows)), "{held:?}");
}
