//! Training elsewhere, as the command does it.

use crate::command::{json, refused, text};

fn listened(data: &std::path::Path) {
    for (user, artist) in [("ann", "Björk"), ("ann", "Autechre"), ("ben", "Björk"), ("cat", "Tricky")] {
        json(data, &["listen", "--user", user, "--artist", artist, "--title", "Song", "--at", "1700000000"]);
    }
    text(data, &["user", "settings", "cat", "--private", "true"]);
}

#[test]
fn without_a_candidate_there_are_no_lists_of_it() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    listened(data);
    assert_eq!(json(data, &["spark", "candidates"])["candidates"].as_array().map(Vec::len), Some(0));
    assert!(text(data, &["spark", "candidates"]).contains("echotune spark import"));
    refused(data, &["spark", "recommend", "--user", "ann"], 3, "no candidate for artists");
    refused(data, &["spark", "recommend", "--user", "ann", "--candidate", "7"], 3, "no candidate 7");
    refused(data, &["spark", "recommend", "--user", "nobody"], 3, "nobody");
    refused(data, &["spark", "recommend", "--user", "ann", "-n", "501"], 2, "limit is 501");
}

#[cfg(not(feature = "spark"))]
#[test]
fn a_program_without_parquet_says_how_to_build_one_with_it() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    listened(data);
    let target = data.join("export");
    refused(data, &["spark", "export", target.to_str().expect("text")], 1, "--features spark");
    refused(data, &["spark", "import", "x", "--export", "y"], 1, "--features spark");
    assert!(!target.exists());
}

#[cfg(feature = "spark")]
#[test]
fn an_export_holds_everything_but_what_private_listeners_know_and_is_written_once() {
    use echotune_recommendations::spark::{Manifest, Part, read_rows};

    let folder = tempfile::tempdir().expect("folder");
    let (data, target) = (folder.path().join("data"), folder.path().join("export"));
    listened(&data);
    let path = target.to_str().expect("text");
    let told = json(&data, &["spark", "export", path, "--partitions", "2", "--hold-out", "0"]);
    crate::page::check("spark export", &told);
    assert_eq!((&told["listeners"], &told["rows"]), (&2.into(), &6.into()), "{told}");
    let (manifest, _) = Manifest::read(&target, "track").expect("checked");
    let mut rows = Vec::new();
    for file in manifest.files(Part::Listens, "track") {
        read_rows(&target.join(&file.path), |row| rows.push(row)).expect("read");
    }
    let tricky = echotune_model::ItemId::track("Tricky", "Song");
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.item != tricky && row.last_listened_at_ms == 1_700_000_000_000), "{rows:?}");
    refused(&data, &["spark", "export", path], 1, "is not empty");
    refused(&data, &["spark", "export", "x", "--partitions", "0"], 2, "partitions is 0");
    refused(&data, &["spark", "import", path, "--export", path], 3, "factors.json");
    refused(&data, &["spark", "import", path, "--export", path, "--min-share", "2"], 2, "from 0 to 1");
}
