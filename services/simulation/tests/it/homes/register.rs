//! What regions agree on: a host that compares and sets, and answers one question on each connection.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use echotune_users::homes::{HomeState, Served};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use turmoil::net::{TcpListener, TcpStream};

use crate::log::told;

/// Where every host answers.
const PORT: u16 = 7_100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(800);
/// Bytes of a question or an answer at the most.
const LONGEST: u64 = 4_096;

/// Name of the host.
pub(super) const WORLD: &str = "world";

/// Asks a host.
pub(super) async fn ask(host: &str, question: &str) -> Result<String, String> {
    let asking = async {
        let mut stream = TcpStream::connect((host, PORT)).await.map_err(told)?;
        stream.write_all(question.as_bytes()).await.map_err(told)?;
        stream.shutdown().await.map_err(told)?;
        let mut answer = String::new();
        stream.take(LONGEST).read_to_string(&mut answer).await.map_err(told)?;
        if answer.is_empty() { Err("no answer".to_owned()) } else { Ok(answer) }
    };
    timeout(PATIENCE, asking).await.map_err(told)?
}

/// Answers until the host is gone.
pub(super) async fn answer(with: impl Fn(&str) -> String + 'static) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let with = Rc::new(with);
    loop {
        let (mut stream, _) = listener.accept().await?;
        let with = Rc::clone(&with);
        tokio::task::spawn_local(async move {
            let mut question = String::new();
            let mut asked = (&mut stream).take(LONGEST);
            if let Ok(Ok(_)) = timeout(PATIENCE, asked.read_to_string(&mut question)).await {
                let answer = with(&question);
                // Whoever has gone asks again.
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
    }
}

/// What is agreed on.
pub(super) struct Register {
    pub(super) served: BTreeMap<String, Served>,
    pub(super) home: HomeState,
}

impl Register {
    pub(super) fn answer(register: &RefCell<Self>, question: &str) -> String {
        let mut register = register.borrow_mut();
        let yes = |is: bool| (if is { "yes" } else { "no" }).to_owned();
        let words: Vec<_> = question.split(' ').collect();
        match words.as_slice() {
            ["regions"] => {
                let told = |(region, served): (&String, &Served)| {
                    format!("{region} {} {} {}\n", served.by, served.epoch, served.since_ms)
                };
                format!("regions\n{}", register.served.iter().map(told).collect::<String>())
            }
            ["serve", region, by, epoch, since_ms] => {
                let number = |text: &str| text.parse().expect("a number");
                let wanted = Served { by: (*by).to_owned(), epoch: number(epoch), since_ms: number(since_ms) };
                let epoch = register.served.get(*region).map_or(0, |served| served.epoch);
                let is_next = epoch + 1 == wanted.epoch;
                if is_next {
                    register.served.insert((*region).to_owned(), wanted);
                }
                yes(is_next)
            }
            ["home"] => register.home.to_string(),
            _ => {
                let (seen, wanted) =
                    question.strip_prefix("change ").and_then(|states| states.split_once('|')).expect("a change");
                let is_seen = register.home.to_string() == seen;
                if is_seen {
                    register.home = wanted.parse().expect("a home");
                }
                yes(is_seen)
            }
        }
    }
}

/// Reads what [`Register::answer`] tells of regions.
pub(super) fn served_of(answer: &str) -> BTreeMap<String, Served> {
    let row = |line: &str| {
        let mut words = line.split(' ');
        let (region, by) = (words.next()?, words.next()?);
        let (epoch, since_ms) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((region.to_owned(), Served { by: by.to_owned(), epoch, since_ms }))
    };
    answer.lines().skip(1).filter_map(row).collect()
}
