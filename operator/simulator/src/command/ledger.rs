//! `ledger`: decisions that are made again.

use std::{fs, io::BufWriter, path::Path};

use anyhow::Context as _;

use super::{Fault, arguments::LedgerAction, note, say};
use crate::{rule::ours::Ours, sim::replay, study::Class, trace::Trace};

pub(super) fn run(action: &LedgerAction) -> anyhow::Result<()> {
    match action {
        LedgerAction::Replay { file } => again(file),
        LedgerAction::Record { demand, service, price, seed, file } => {
            let plan = demand.plan(Vec::new(), 1)?;
            let trace = Trace::open(&demand.trace)?;
            if *service == 0 {
                return Err(Fault::Usage("--service counts from 1".into()).into());
            }
            let mut left = *service;
            for (index, found) in (0_u64..).zip(trace.services()) {
                let found = plan.prepared(found?);
                left -= usize::from(left > 0 && plan.takes(index, Class::of(&found)));
                if left > 0 {
                    continue;
                }
                note(&trace.told());
                let setting = &plan.setting;
                let policy = Ours::policy(setting.concurrency, setting.most_pods, setting.slow_ms, *price);
                policy.check().map_err(|faults| Fault::Usage(faults.to_string()))?;
                let written =
                    fs::File::create(file).with_context(|| format!("{} cannot be written", file.display()))?;
                let mut ours = Ours::new(policy).with_ledger(BufWriter::new(written));
                let measures = replay(&found, index, &mut ours, setting, *seed);
                if let Some(fault) = ours.fault.take() {
                    return Err(anyhow::Error::new(fault).context(format!("{} cannot be written", file.display())));
                }
                let (name, calls, ticks) = (&found.name, measures.calls, measures.ticks);
                return say(format_args!("{}: service {name}, {calls} calls, {ticks} ticks", file.display()));
            }
            Err(Fault::Usage(format!("--service {service} is beyond the services of the trace that were asked for"))
                .into())
        }
    }
}

fn again(file: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::from(Fault::NotFound(file.to_owned())),
        std::io::ErrorKind::InvalidData => Fault::Invalid(format!("{} is not UTF-8 text", file.display())).into(),
        _ => anyhow::Error::new(cause).context(format!("{} cannot be read", file.display())),
    })?;
    match echotune_autoscaler::replay(text.lines()) {
        Ok(replayed) => {
            say(format_args!(
                "{}: {} decisions came out the same, to the last bit of the state ({:016x})",
                file.display(),
                replayed.decisions,
                replayed.state.digest()
            ))?;
            if replayed.lost == 0 {
                return Ok(());
            }
            say(format_args!("{}: {} decisions are missing that could not be written", file.display(), replayed.lost))
        }
        Err(error) => Err(Fault::Invalid(format!("{}, {error}", file.display())).into()),
    }
}
