//! One run of homes, as its seed decides it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use echotune_testbed::{
    Region,
    history::{Entry, Header, History, Op, Outcome},
};
use echotune_users::homes::HomeState;
use turmoil::{Builder, Sim};

use super::{
    Without,
    process::{Process, Write},
    register::{Register, WORLD, answer},
};
use crate::draw::Draw;

const TICK: Duration = Duration::from_millis(20);
const LASTS: Duration = Duration::from_secs(40);
/// By how much clocks of regions differ at the most, in milliseconds: less than rules allow.
const MAX_AHEAD_MS: u64 = 50_000;

/// What is done, to whom.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Dies; starts again later.
    Crash(Region),
    Bounce(Region),
    /// Another region is told to make the writes of one.
    Serve(Region, Region),
    /// The user is moved to a region.
    Fetch(Region),
    /// A region and what is agreed on do not reach each other.
    Cut(Region),
    Mend(Region),
}

/// What is done, and when. Users move, and regions are cut off, in some runs; in others regions die and others take over: one
/// that is taken over while it lives and is cut off writes beside the other, as the decision record on homes says.
fn plan(seed: u64) -> Vec<(Duration, What)> {
    let mut draw = Draw::new(seed, 10);
    let mut plan = Vec::new();
    let mut at = Duration::ZERO;
    let moves = draw.happens(50);
    while at < LASTS {
        at += draw.ms(500, 6_000);
        let region = draw.of(&Region::ALL);
        if moves {
            plan.push((at, What::Fetch(region)));
            if draw.happens(50) {
                let other = draw.of(&Region::ALL);
                plan.push((at + draw.ms(0, 2_000), What::Cut(other)));
                plan.push((at + draw.ms(2_000, 5_000), What::Mend(other)));
            }
        } else {
            plan.push((at, What::Serve(region, draw.of(&Region::ALL))));
        }
        if draw.happens(30) {
            let dead = draw.of(&Region::ALL);
            plan.push((at + draw.ms(0, 1_000), What::Crash(dead)));
            plan.push((at + draw.ms(1_000, 4_000), What::Bounce(dead)));
        }
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

type Orders = Rc<RefCell<Vec<(Region, What)>>>;

/// Runs a seed; what is wrong, if anything.
pub(super) fn run(seed: u64, without: Option<Without>) -> Option<String> {
    let mut draw = Draw::new(seed, 11);
    let latency = draw.of(&[20, 60, 150]);
    let mut sim = Builder::new()
        .rng_seed(draw.next())
        .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .tick_duration(TICK)
        .simulation_duration(LASTS * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(latency))
        .build();
    let register = Register { served: BTreeMap::new(), home: HomeState::first(draw.of(&Region::ALL).name()) };
    let (register, writes) = (Rc::new(RefCell::new(register)), Rc::new(RefCell::new(Vec::new())));
    let agreed = Rc::clone(&register);
    sim.host(WORLD, move || {
        let register = Rc::clone(&agreed);
        answer(move |question| Register::answer(&register, question))
    });
    let orders = Orders::default();
    for here in Region::ALL {
        let ahead_ms = draw.below(MAX_AHEAD_MS);
        let (writes, orders, life) = (Rc::clone(&writes), Rc::clone(&orders), RefCell::new(0));
        sim.host(here.name(), move || {
            *life.borrow_mut() += 1;
            let process = Process::new(here, ahead_ms, without, Rc::clone(&writes));
            let draw = Draw::new(seed, 20 + 10 * *life.borrow() + here as u64);
            host(process, here, draw, Rc::clone(&orders))
        });
    }
    let ended = drive(&mut sim, seed, &orders);
    if let Err(cause) = ended {
        return Some(format!("a host ended: {cause}"));
    }
    let writes = writes.borrow().clone();
    if writes.is_empty() {
        return Some("nobody wrote at all".to_owned());
    }
    // By when they were sent; and of one home after the other by the times that they carry, which tell what stays.
    let sent = history(seed, writes.clone(), |write| write.sent, |write| write.tenure);
    let carried = history(seed, writes, |write| write.at.0, |write| (write.tenure.0, 0));
    let is_owned = |entry: &Entry| !matches!(entry.op, Op::Claim { .. } | Op::Owner { .. });
    let carried = History { entries: carried.entries.into_iter().filter(is_owned).collect(), ..carried };
    let verdicts = [("sent", sent.judge()), ("carried", carried.judge())];
    verdicts.into_iter().find(|(_, verdict)| !verdict.passed()).map(|(by, verdict)| format!("by times {by}: {verdict}"))
}

/// Lives, answers and does as it is told.
async fn host(process: Rc<Process>, here: Region, draw: Draw, orders: Orders) -> turmoil::Result {
    tokio::task::spawn_local(Rc::clone(&process).live(draw));
    let (told, telling) = (Rc::clone(&process), Rc::clone(&orders));
    tokio::task::spawn_local(async move {
        loop {
            let mine = |(to, _): &(Region, What)| *to == here;
            let order = {
                let mut orders = telling.borrow_mut();
                orders.iter().position(mine).map(|at| orders.remove(at).1)
            };
            match order {
                Some(What::Serve(region, _)) => drop(told.serve(region).await),
                Some(What::Fetch(_)) => drop(told.fetch().await),
                _ => tokio::time::sleep(TICK * 2).await,
            }
        }
    });
    answer(move |question| process.let_go(question)).await
}

fn drive(sim: &mut Sim<'_>, seed: u64, orders: &Orders) -> Result<(), String> {
    let mut plan = plan(seed).into_iter().peekable();
    while sim.elapsed() < LASTS {
        while let Some((_, what)) = plan.next_if(|(at, _)| *at <= sim.elapsed()) {
            match what {
                What::Crash(region) if sim.is_host_running(region.name()) => sim.crash(region.name()),
                What::Bounce(region) if !sim.is_host_running(region.name()) => sim.bounce(region.name()),
                What::Crash(_) | What::Bounce(_) => {}
                What::Cut(region) => sim.partition(region.name(), WORLD),
                What::Mend(region) => sim.repair(region.name(), WORLD),
                What::Serve(_, to) | What::Fetch(to) => orders.borrow_mut().push((to, what)),
            }
        }
        sim.step().map_err(|cause| cause.to_string())?;
    }
    Ok(())
}

/// Writes in an order, as the testbed judges them: who has a tenure is its one owner, and tenures follow one another.
fn history(seed: u64, mut writes: Vec<Write>, place: fn(&Write) -> u64, tenure: fn(&Write) -> (u64, u64)) -> History {
    writes.sort_by_key(place);
    let mut entries = Vec::new();
    let mut note = |region, at: u64, op| {
        entries.push(Entry { region, began: at, ended: at, outcome: Outcome::Ok, op });
    };
    let mut nth: BTreeMap<(u64, u64), u64> = writes.iter().map(|write| (tenure(write), 0)).collect();
    let ranks: BTreeMap<_, u64> = nth.keys().copied().zip(0..).collect();
    let end = writes.len() as u64;
    for (at, write) in (1..).zip(&writes) {
        let (of, owner) = (tenure(write), write.region as u64);
        let number = nth.entry(of).or_default();
        *number += 1;
        let (key, sequence) = ("the user".to_owned(), ranks[&of] * 1_000_000 + *number);
        note(write.region, 0, Op::Send { key: key.clone(), sequence });
        note(write.region, at, Op::Deliver { consumer: "whoever looks".to_owned(), key, sequence });
        let name = format!("the user in {of:?}");
        note(write.region, at, Op::Claim { name: name.clone(), owner });
        if *number == 1 {
            note(write.region, end + 1, Op::Owner { name, owner: Some(owner) });
        }
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    History { header: Header { scenario: "homes".to_owned(), seed, version }, entries }
}
