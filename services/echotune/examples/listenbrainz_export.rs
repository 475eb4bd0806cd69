//! Writes a generated ListenBrainz export, to measure imports with:
//! `cargo run --release -p echotune --example listenbrainz_export -- export.zip 1000000`.

use std::path::Path;

const USAGE: &str = "usage: listenbrainz_export PATH LISTENS";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, listens] = arguments.as_slice() else { return Err(USAGE.into()) };
    Ok(echotune::demo::write_listenbrainz(Path::new(path), listens.parse()?, 7)?)
}
