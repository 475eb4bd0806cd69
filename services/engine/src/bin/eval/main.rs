//! Measures models on interaction data: `cargo xtask eval`. The mathematics is in `echotune_engine::evaluation`;
//! here are the command line, the files, the report and the peers.

mod arguments;
mod load;
mod peers;
mod python;
mod report;
mod run;
mod scale;
mod speed;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use echotune_engine::evaluation::{
    BlendModel, ContentModel, EaseModel, GraphFilterModel, IalsModel, ItemGraphModel, Model, Popularity, ServedModel,
    Split, Trending, ceiling,
};

use crate::{
    arguments::{Arguments, Command},
    load::Source,
    peers::Peers,
    report::Report,
    run::Measure,
};

/// Every model that can be measured, in the order of the report.
fn models() -> Vec<Box<dyn Model>> {
    vec![
        Box::new(Popularity),
        Box::new(Trending),
        Box::new(ItemGraphModel),
        Box::new(GraphFilterModel),
        Box::new(EaseModel),
        Box::new(ContentModel),
        Box::new(IalsModel { name: "ials-64", factors: 64 }),
        Box::new(IalsModel { name: "ials-128", factors: 128 }),
        Box::new(IalsModel { name: "ials-256", factors: 256 }),
        Box::new(BlendModel),
        Box::new(ServedModel),
    ]
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Speed(arguments)) => speed::run(arguments),
        Some(Command::Scale(arguments)) => scale::run(arguments),
        None => evaluate(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The models asked for, or all that the data is enough for.
fn chosen_models(arguments: &Arguments, source: &Source) -> anyhow::Result<Vec<Box<dyn Model>>> {
    let known = models();
    let names = || known.iter().map(|model| model.name()).collect::<Vec<_>>().join(", ");
    for wanted in &arguments.models {
        if !known.iter().any(|model| model.name() == wanted) {
            bail!("no model is named '{wanted}'; there are {}", names());
        }
    }
    if arguments.models.is_empty() && !source.events.timed {
        eprintln!("left out: trending, which needs a time in every row");
    }
    let fits = |name: &str| match arguments.models.as_slice() {
        [] if name == Trending.name() => source.events.timed,
        [] if name == ContentModel.name() => arguments.split() == Split::NewItems && source.has_tags(),
        [] => true,
        wanted => wanted.iter().any(|one| one == name),
    };
    Ok(known.into_iter().filter(|model| fits(model.name())).collect())
}

fn evaluate(arguments: &Arguments) -> anyhow::Result<()> {
    let source = load::load(&arguments.files()?)?;
    let models = chosen_models(arguments, &source)?;
    if arguments.peers && arguments.split() == Split::NewItems {
        bail!("peers rank all items; with --split new-items there are none");
    }
    let mut peers = arguments.peers.then(|| Peers::start(&arguments.python, arguments.peer_trials)).transpose()?;
    let (at, seeds) = (arguments.at(), arguments.seeds());
    let mut report = Report::new(arguments.output, &source.name, &at);
    for seed in 1..=seeds {
        let dataset = source.split(arguments.split(), seed)?;
        let fold = dataset.testing();
        if fold.judged().is_empty() {
            bail!("nobody has both a history and test items: there is nothing to measure");
        }
        if seed == 1 {
            load::describe(&source, &dataset);
        }
        report.ceiling(ceiling(&fold, &at));
        let measure = Measure { dataset: &dataset, at: &at, seed, seeds };
        for model in &models {
            let run = measure.model(model.as_ref()).with_context(|| format!("model {}", model.name()))?;
            report.add(run);
        }
        if let Some(peers) = &mut peers {
            peers.measure(&measure, &mut report)?;
        }
    }
    report.finish();
    Ok(())
}
