use std::{
    convert::Infallible,
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use super::*;

const PATIENCE: Patience = Patience { notice: Duration::from_secs(1), drain: Duration::from_secs(20) };

/// Notes what happens, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<&'static str>>>);

impl Notes {
    fn add(&self, note: &'static str) {
        self.0.lock().unwrap().push(note);
    }
}

async fn note_at(stop: CancellationToken, notes: Notes, note: &'static str) -> Result<(), Infallible> {
    stop.cancelled().await;
    notes.add(note);
    Ok(())
}

fn life(notes: &Notes) -> Life {
    let mut life = Life::new(PATIENCE);
    life.consumer("consumer", note_at(life.stop(), notes.clone(), "consumer"));
    life.server("server", note_at(life.drain(), notes.clone(), "server"));
    let flushed = notes.clone();
    life.at_end("flush", move || {
        flushed.add("flush");
        Ok(())
    });
    let (not_ready, noted) = (life.not_ready(), notes.clone());
    tokio::spawn(note_at(not_ready, noted, "not ready"));
    life
}

#[tokio::test(start_paused = true)]
async fn a_signal_takes_everything_down_in_order() {
    let notes = Notes::default();
    let (sender, signals) = mpsc::channel(1);
    sender.send(Signal::Terminate).await.unwrap();
    let exit = life(&notes).until(signals).await;
    assert_eq!((exit.code(), exit), (0, Exit::Clean));
    assert_eq!(*notes.0.lock().unwrap(), ["not ready", "server", "consumer", "flush"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_cut_off_and_named() {
    let notes = Notes::default();
    let (sender, signals) = mpsc::channel(1);
    sender.send(Signal::Interrupt).await.unwrap();
    let mut life = life(&notes);
    life.server("slow server", std::future::pending::<Result<(), Infallible>>());
    let started = Instant::now();
    let exit = life.until(signals).await;
    assert_eq!(exit, Exit::Failed(vec!["slow server did not end in time and was cut off".into()]));
    assert_eq!((exit.code(), started.elapsed()), (1, PATIENCE.notice + PATIENCE.drain));
    assert_eq!(*notes.0.lock().unwrap(), ["not ready", "server", "consumer", "flush"]);
}

#[tokio::test(start_paused = true)]
async fn servers_and_consumers_share_the_time_and_consumers_have_some_whatever_servers_took() {
    let slow = std::future::pending::<Result<(), Infallible>>;
    for (slow_servers, wanted) in [(false, PATIENCE.drain), (true, PATIENCE.drain + LEAST)] {
        let mut life = life(&Notes::default());
        life.consumer("slow consumer", slow());
        if slow_servers {
            life.server("slow server", slow());
        }
        let started = Instant::now();
        let exit = life.end().await;
        assert_eq!((exit.code(), started.elapsed()), (1, PATIENCE.notice + wanted), "{exit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_takes_the_rest_down_in_order() {
    let notes = Notes::default();
    let (_sender, signals) = mpsc::channel(1);
    let mut life = life(&notes);
    life.consumer("relay", async { Err("the disk is full") });
    let exit = life.until(signals).await;
    assert_eq!(exit, Exit::Failed(vec!["relay failed: the disk is full".into()]));
    assert_eq!(*notes.0.lock().unwrap(), ["not ready", "server", "consumer", "flush"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_waits_for_nothing() {
    let (sender, signals) = mpsc::channel(2);
    sender.send(Signal::Terminate).await.unwrap();
    let mut life = Life::new(PATIENCE);
    let draining = life.drain();
    life.server("slow server", std::future::pending::<Result<(), Infallible>>());
    tokio::spawn(async move {
        draining.cancelled().await;
        sender.send(Signal::Interrupt).await
    });
    let exit = life.until(signals).await;
    assert_eq!((exit.code(), exit), (130, Exit::Now(Signal::Interrupt)));
}

/// Set in the process that [`real_signals_stop_and_then_end_a_process`] starts.
const CHILD: &str = "ECHOTUNE_LIFECYCLE_TEST_CHILD";

#[test]
fn child_of_the_test_with_real_signals() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let exit = runtime.block_on(async {
        let signals = signals().unwrap();
        let mut life = Life::new(Patience { notice: Duration::ZERO, drain: Duration::from_secs(600) });
        let draining = life.drain();
        life.server("slow server", async move {
            eprintln!("ready");
            draining.cancelled().await;
            eprintln!("draining");
            std::future::pending::<Result<(), Infallible>>().await
        });
        life.until(signals).await
    });
    std::process::exit(exit.code().into());
}

#[test]
fn real_signals_stop_and_then_end_a_process() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "lifecycle::tests::child_of_the_test_with_real_signals", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut signal_at = |line: &str| {
            assert!(lines.by_ref().any(|read| read.unwrap() == line), "the child never said {line}");
            let kill = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
            assert!(kill.success());
        };
        signal_at("ready");
        signal_at("draining");
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[derive(Debug)]
struct Away(ErrorKind);

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Passing for Away {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_after_servers_were_away_and_ends_by_what_stays() {
    let mut tries = Vec::new();
    let ends = [Some(ErrorKind::Unavailable), Some(ErrorKind::Indeterminate), Some(ErrorKind::DataLoss), None];
    let mut ends = ends.into_iter();
    let began = tokio::time::Instant::now();
    let done = persist("work", CancellationToken::new(), || {
        tries.push(began.elapsed());
        let end = ends.next().flatten();
        async move { end.map_or(Ok(()), |kind| Err(Away(kind))) }
    });
    assert_eq!(done.await.expect_err("what was read is lost").0, ErrorKind::DataLoss);
    assert_eq!(tries.len(), 3, "nothing is tried after that");
    assert!(tries[2] - tries[1] > tries[1] - tries[0], "pauses grow: {tries:?}");

    let stop = CancellationToken::new();
    let away = persist("work", stop.clone(), || async { Err(Away(ErrorKind::Unavailable)) });
    let ended = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.cancel();
    };
    let (done, ()) = tokio::join!(away, ended);
    done.expect("told to stop");
}
