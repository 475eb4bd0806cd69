//! Writes the listens of the demonstration as rows `user item plays time`, one for each listen, to measure models
//! on: `cargo run --release -p echotune --example demo_rows -- FILE [track|artist] [SEED]`, then
//! `cargo xtask eval --data-file FILE --split time`.

use std::{
    env,
    fs::File,
    io::{BufWriter, Write as _},
    process::ExitCode,
};

use echotune::demo::{Shape, generate};

/// The same day whenever it is run.
const NOW_MS: i64 = 1_760_000_000_000;

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let Some(file) = words.next() else {
        eprintln!("usage: demo_rows FILE [track|artist] [SEED]");
        return ExitCode::from(64);
    };
    let artists = words.next().is_some_and(|kind| kind == "artist");
    let seed = words.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    match write(&file, artists, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{file} cannot be written: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn write(file: &str, artists: bool, seed: u64) -> std::io::Result<()> {
    let mut to = BufWriter::new(File::create(file)?);
    writeln!(to, "user\titem\tplays\ttime")?;
    for listener in generate(&Shape::default(), seed, NOW_MS).listeners() {
        for listen in listener.listens {
            let (artist, title) = (listen.track.artist, listen.track.title);
            let item = if artists { artist } else { format!("{artist} – {title}") };
            writeln!(to, "{}\t{item}\t1\t{}", listener.name, listen.listened_at_ms)?;
        }
    }
    to.flush()
}
