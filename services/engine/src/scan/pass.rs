use super::{
    Extra, LARGEST_EXTRA, Request, ScanError,
    kernel::Kernel,
    panels::{NOBODY, PANEL, Panels, Rounded},
    top::Top,
};
use crate::dense::{Matrix, dot};

/// What a pass needs of a request.
pub(super) struct Pass<'r> {
    pub(super) request: Request<'r>,
    pub(super) rounded: Rounded,
    pub(super) added: Added<'r>,
}

/// Addends of a request, to be found by panel.
pub(super) enum Added<'r> {
    None,
    /// (place, addend) ascending by panel, and where each panel begins.
    Sparse(Vec<(u32, f32)>, Vec<usize>),
    Dense(&'r [f32]),
}

/// Whether the request suits `items` items of `rank` factors.
pub(super) fn check(request: &Request<'_>, items: usize, rank: usize) -> Result<Rounded, ScanError> {
    if request.query.len() != rank {
        return Err(ScanError::Rank { found: request.query.len(), expected: rank });
    }
    // NaN is within no range.
    let fits = |item: u32, value: f32| {
        let known = (item as usize) < items && (-LARGEST_EXTRA..=LARGEST_EXTRA).contains(&value);
        if known { Ok(()) } else { Err(ScanError::Extra { item, value, items }) }
    };
    match request.extra {
        Extra::None => {}
        Extra::Sparse(extra) => extra.iter().try_for_each(|(item, value)| fits(*item, *value))?,
        Extra::Dense(extra) if extra.len() != items => {
            return Err(ScanError::Extras { found: extra.len(), expected: items });
        }
        Extra::Dense(extra) => (0..).zip(extra).try_for_each(|(item, value)| fits(item, *value))?,
    }
    Rounded::new(request.query).ok_or(ScanError::Query)
}

impl<'r> Added<'r> {
    /// By the place of each item; counted by panel, so that time is O(addends + panels).
    pub(super) fn new(extra: Extra<'r>, places: &[u32], panels: usize) -> Self {
        let extra = match extra {
            Extra::None => return Self::None,
            Extra::Dense(extra) => return Self::Dense(extra),
            Extra::Sparse(extra) => extra,
        };
        let mut starts = vec![0; panels + 1];
        for (item, _) in extra {
            starts[places[*item as usize] as usize / PANEL + 1] += 1;
        }
        for panel in 0..panels {
            starts[panel + 1] += starts[panel];
        }
        let mut next = starts.clone();
        let mut sorted = vec![(0, 0.0); extra.len()];
        for (item, value) in extra {
            let place = places[*item as usize];
            let to = &mut next[place as usize / PANEL];
            sorted[*to] = (place, *value);
            *to += 1;
        }
        Self::Sparse(sorted, starts)
    }

    /// The addends of a panel: None for all zero.
    pub(super) fn of(&self, panel: usize, items: &[u32]) -> Option<[f32; PANEL]> {
        let mut lanes = [0.0; PANEL];
        match self {
            Self::None => return None,
            Self::Sparse(sorted, starts) => {
                let own = &sorted[starts[panel]..starts[panel + 1]];
                if own.is_empty() {
                    return None;
                }
                for (place, value) in own {
                    lanes[*place as usize % PANEL] += value;
                }
                lanes = lanes.map(|lane| lane.clamp(-LARGEST_EXTRA, LARGEST_EXTRA));
            }
            Self::Dense(extra) => {
                for (lane, item) in lanes.iter_mut().zip(items) {
                    *lane = extra.get(*item as usize).copied().unwrap_or(0.0);
                }
            }
        }
        Some(lanes)
    }
}

/// Addends by item, each item once: what is given for one item is added up in the order given.
pub(super) fn summed(extra: &[(u32, f32)]) -> Vec<(u32, f32)> {
    let mut sorted = extra.to_vec();
    sorted.sort_by_key(|(item, _)| *item);
    let sum = |same: &[(u32, f32)]| {
        let sum = same.iter().fold(0.0, |sum, (_, value)| sum + value);
        (same[0].0, sum.clamp(-LARGEST_EXTRA, LARGEST_EXTRA))
    };
    sorted.chunk_by(|a, b| a.0 == b.0).map(sum).collect()
}

/// Where items are looked for.
pub(super) struct Catalogue<'c> {
    pub(super) panels: &'c Panels,
    pub(super) factors: &'c Matrix,
    pub(super) kernel: Kernel,
}

impl Catalogue<'_> {
    /// Offers what a panel holds to each of the requests, all at once. `reached` is a score below which
    /// nothing is wanted, for each.
    pub(super) fn visit<const Q: usize>(
        &self,
        panel: usize,
        passes: [&Pass<'_>; Q],
        tops: [&mut Top; Q],
        reached: [f32; Q],
    ) {
        let mut bounds = [[0.0; PANEL]; Q];
        self.kernel.bounds(self.panels.panel(panel), passes.map(|pass| &pass.rounded), bounds.each_mut());
        let items = self.panels.items(panel);
        for (((pass, top), mut bounds), reached) in passes.into_iter().zip(tops).zip(bounds).zip(reached) {
            let added = pass.added.of(panel, items);
            if let Some(added) = &added {
                // Rounding keeps order: the bound of the sum is the rounded sum of the bound.
                bounds.iter_mut().zip(added).for_each(|(bound, added)| *bound += added);
            }
            let reached = top.threshold().max(reached);
            if bounds.iter().fold(false, |any, bound| any | (*bound >= reached)) {
                self.score(items, pass, top, (&bounds, reached), added.as_ref());
            }
        }
    }

    /// Scores the items of a panel whose bounds reach the best.
    fn score(
        &self,
        items: &[u32],
        pass: &Pass<'_>,
        top: &mut Top,
        (bounds, reached): (&[f32; PANEL], f32),
        added: Option<&[f32; PANEL]>,
    ) {
        let mut lanes = [0_u8; PANEL];
        let mut count = 0;
        for (lane, (bound, item)) in (0_u8..).zip(bounds.iter().zip(items)) {
            if *bound >= reached && *item != NOBODY && !(pass.request.excluded)(*item) {
                lanes[count] = lane;
                count += 1;
            }
        }
        let lanes = &mut lanes[..count];
        if count > 4 {
            // The best bounds first: what they reach spares the others.
            lanes.sort_unstable_by(|a, b| bounds[*b as usize].total_cmp(&bounds[*a as usize]));
        }
        for lane in lanes.iter().map(|lane| *lane as usize) {
            if bounds[lane] < top.threshold() {
                continue;
            }
            let item = items[lane];
            let score = dot(pass.request.query, self.factors.row(item as usize));
            top.offer(item, score + added.map_or(0.0, |added| added[lane]));
        }
    }

    /// Whether nothing in a panel can reach the best, by its largest norm.
    pub(super) fn skips(&self, panel: usize, largest: f32, pass: &Pass<'_>, reached: f32) -> bool {
        let added = match &pass.added {
            Added::None => 0.0,
            Added::Dense(_) => return false,
            Added::Sparse(sorted, starts) => {
                let own = &sorted[starts[panel]..starts[panel + 1]];
                // Of one item several may be added up; only positive ones raise a bound.
                own.iter().map(|(_, value)| value.max(0.0)).sum::<f32>() * (1.0 + 1e-5)
            }
        };
        pass.rounded.most(largest) + added < reached
    }
}
