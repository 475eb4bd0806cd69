use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};
use echotune_engine::evaluation::{Format, Split};

use crate::{load::Files, scale, speed};

/// What `--help` says after the options.
const AFTER: &str = "\
DATA
  A known data set: gowalla, lastfm-lightgcn or hetrec, in the folders gowalla, lastfm-lightgcn and
  lastfm-hetrec2011 of --data. Or two files, --train and --test. Or one file and --split.

FORMATS
  rows       user item [weight [time]], separated by tabs, commas or blanks, the same number of fields in
             every row; ids are any text. A first line is a header when its third field is no number or its
             first is a name such as user_id; a column called time, timestamp, ts or date is the time.
  lightgcn   user item item …, separated by blanks.
  Without --format a file is lightgcn when its first 200 lines are whole numbers separated by blanks, and
  have more than four fields or not all the same number of fields; otherwise it is rows.
  --social   user friend            --tags   user item tag            --items   item, and what it is called
  Whatever follows in a row of these is passed over.

PROTOCOL
  Each model ranks the whole catalogue for every listener with test items and a history; relevance is binary.
  8:1:1      per listener a random tenth is test, another validation; what is ranked is neither in training
             nor in validation. Models are fitted on training alone.
  --test     a tenth of each listener's training pairs is validation; the chosen model is fitted again on all
             training pairs, and these are not ranked. Listeners of the test file alone are judged too.
  time       the last tenth of all events is test, the tenth before it validation; the chosen model is fitted
             again on everything before the test. To be found is what is new to the listener.
  new-items  a random tenth of the items is test, another validation; nobody knows them in training, and only
             they are ranked.
  Hyper-parameters are chosen on validation at the first length of --at, by 2,000 listeners at most: by NDCG, and
  for graph-filter, ease and blend by the geometric mean of recall and NDCG.

OUTPUT of --output json, one object per line
  dataset, model, recall@k, ndcg@k, precision@k, coverage (share of the catalogue in the lists of the largest
  k), fit_s (seconds of the last fit), users (judged), seed, chosen (hyper-parameters). With several seeds a
  last line per model has \"seed\": \"mean\" and every figure as {\"mean\", \"sd\"}.";

/// Measures models on interaction data.
#[derive(Debug, Parser)]
#[command(name = "echotune-eval", bin_name = "cargo xtask eval", about, after_long_help = AFTER)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// A known data set (gowalla, lastfm-lightgcn, hetrec) or a file to be split
    #[arg(value_name = "DATASET|FILE", conflicts_with_all = ["train", "data_file"])]
    source: Option<String>,
    /// A file to be split, whatever it is called
    #[arg(long, value_name = "FILE", conflicts_with = "train")]
    data_file: Option<PathBuf>,
    /// Training interactions
    #[arg(long, value_name = "FILE", requires = "test")]
    train: Option<PathBuf>,
    /// Test interactions
    #[arg(long, value_name = "FILE", requires = "train")]
    test: Option<PathBuf>,
    /// How one file is split [default: 8:1:1]
    #[arg(long, value_enum, conflicts_with = "train")]
    split: Option<SplitName>,
    /// Seeds, from 1: of the split, the validation part and the models [default: 5 for 8:1:1, otherwise 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: Option<u64>,
    /// How interactions are written [default: told by the first lines]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Friends of listeners
    #[arg(long, value_name = "FILE")]
    social: Option<PathBuf>,
    /// Tags that listeners gave items
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
    /// The catalogue: items that nobody listened to are ranked too
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Folder of the known data sets
    #[arg(long, value_name = "DIR", env = "ECHOTUNE_EVAL_DATA", default_value = "data")]
    data: PathBuf,
    /// Lengths of list that are judged [default: 10,20; 20,10 for gowalla and lastfm-lightgcn]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    at: Vec<u16>,
    /// Models to measure [default: all that the data is enough for]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) models: Vec<String>,
    /// Measure implicit's ALS and EASE in NumPy as well, on the same splits
    #[arg(long)]
    pub(crate) peers: bool,
    /// Python with numpy, scipy and implicit
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Hyper-parameters tried on validation for each peer
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) peer_trials: u32,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Speed(speed::Arguments),
    Scale(scale::Arguments),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    /// Per listener a random tenth for test and another for validation
    #[value(name = "8:1:1")]
    Random,
    /// At two moments for all listeners
    Time,
    /// A random tenth of the items for test and another for validation, known to nobody before
    NewItems,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// user item [weight [time]]
    Rows,
    /// user item item …
    Lightgcn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Means and standard deviations
    Table,
    /// One object per line
    Json,
}

impl Arguments {
    /// The files to be read.
    pub(crate) fn files(&self) -> anyhow::Result<Files> {
        let mut files = match (&self.train, &self.data_file, self.source.as_deref()) {
            (Some(train), _, _) => Files { test: self.test.clone(), ..Files::of(train.clone()) },
            (None, Some(file), _) => Files::of(file.clone()),
            (None, None, Some(name)) => files_of(&self.data, name),
            (None, None, None) => bail!("name a data set, --train and --test, or a file; see --help"),
        };
        if files.test.is_some() && self.split.is_some() {
            bail!("--split is for one file; this data has a test file of its own");
        }
        files.format = self.format.map(|format| match format {
            FormatName::Rows => Format::Rows,
            FormatName::Lightgcn => Format::LightGcn,
        });
        for (given, file) in
            [(&self.social, &mut files.social), (&self.tags, &mut files.tags), (&self.items, &mut files.items)]
        {
            if given.is_some() {
                file.clone_from(given);
            }
        }
        Ok(files)
    }

    /// Whether the data set is one that brings a test part and is compared at 20.
    fn fixed(&self) -> bool {
        matches!(self.source.as_deref(), Some("gowalla" | "lastfm-lightgcn"))
    }

    /// The lengths of list; hyper-parameters are chosen at the first.
    pub(crate) fn at(&self) -> Vec<usize> {
        match self.at.as_slice() {
            [] if self.fixed() => vec![20, 10],
            [] => vec![10, 20],
            at => at.iter().map(|k| usize::from(*k)).collect(),
        }
    }

    pub(crate) fn split(&self) -> Split {
        match self.split {
            Some(SplitName::Time) => Split::Temporal,
            Some(SplitName::NewItems) => Split::NewItems,
            Some(SplitName::Random) | None => Split::Random,
        }
    }

    pub(crate) fn seeds(&self) -> u64 {
        let random = self.train.is_none() && !self.fixed() && self.split() == Split::Random;
        self.seeds.unwrap_or(if random { 5 } else { 1 })
    }
}

/// The files of a known data set in a folder of such, or the file that is meant otherwise.
pub(crate) fn files_of(data: &Path, name: &str) -> Files {
    let folder = |sub: &str, file: &str| {
        let within = data.join(sub);
        if within.join(file).exists() || !data.join(file).exists() { within } else { data.to_owned() }
    };
    let pair = |folder: &Path, train: &str, test: &str| Files {
        name: name.to_owned(),
        test: Some(folder.join(test)),
        ..Files::of(folder.join(train))
    };
    match name {
        "gowalla" => pair(&folder("gowalla", "train.txt"), "train.txt", "test.txt"),
        "lastfm-lightgcn" => {
            let folder = folder("lastfm-lightgcn", "data1.txt");
            let files = pair(&folder, "data1.txt", "test1.txt");
            Files { social: Some(folder.join("trustnetwork.txt")), ..files }
        }
        "hetrec" => {
            let folder = folder("lastfm-hetrec2011", "user_artists.dat");
            Files {
                name: name.to_owned(),
                social: Some(folder.join("user_friends.dat")),
                tags: Some(folder.join("user_taggedartists.dat")),
                ..Files::of(folder.join("user_artists.dat"))
            }
        }
        file => Files::of(file.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["eval"], words].concat()).expect("arguments")
    }

    #[test]
    fn each_kind_of_data_has_its_files_lengths_and_seeds() {
        let hetrec = parsed(&["hetrec", "--data", "D"]);
        let files = hetrec.files().expect("files");
        assert_eq!(files.train, Path::new("D/lastfm-hetrec2011/user_artists.dat"));
        assert_eq!((hetrec.at(), hetrec.seeds(), files.test), (vec![10, 20], 5, None));
        let gowalla = parsed(&["gowalla", "--at", "5"]);
        assert_eq!((gowalla.at(), gowalla.seeds()), (vec![5], 1));
        assert!(gowalla.files().expect("files").test.is_some_and(|path| path.ends_with("gowalla/test.txt")));
        let time = parsed(&["plays.csv", "--split", "time", "--social", "F"]);
        let files = time.files().expect("files");
        assert_eq!((time.split(), time.seeds(), files.name.as_str()), (Split::Temporal, 1, "plays"));
        assert_eq!(files.social, Some("F".into()));
    }

    #[test]
    fn speed_is_a_command_of_its_own() {
        let arguments = parsed(&["speed", "--data", "D", "--parts", "ials,ease"]);
        assert!(matches!(arguments.command, Some(Command::Speed(_))));
        assert!(parsed(&["hetrec"]).command.is_none());
        // After an option of the other it is the name of a file.
        assert!(parsed(&["--peers", "speed"]).command.is_none());
        assert!(Arguments::try_parse_from(["eval", "speed", "--parts", "none"]).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [
            &["hetrec", "--train", "a", "--test", "b"][..],
            &["--train", "a"],
            &["--train", "a", "--test", "b", "--split", "time"],
            &["a", "--at", "0"],
            &["a", "--seeds", "0"],
            &["a", "--split", "7:2:1"],
        ] {
            assert!(Arguments::try_parse_from([&["eval"], words].concat()).is_err(), "{words:?}");
        }
        assert!(parsed(&[]).files().is_err() && parsed(&["gowalla", "--split", "time"]).files().is_err());
    }
}
