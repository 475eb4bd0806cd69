//! What a fit allocates stays below the estimate and below what it was allowed, counted by the allocator itself.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use echotune_engine::{
    GraphOptions, Interactions, ItemGraph, Random,
    blend::{Blend, BlendOptions},
    budget::FitSize,
    cut,
    ease::EaseOptions,
    terms::{
        content::{self, ContentOptions},
        sequence::{SequenceOptions, transitions},
        social::{Social, SocialOptions},
    },
};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged. A list that grows is copied into new memory, so that the
// most is counted that growing can take.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that work allocates at its peak beyond what is held before it.
fn peak_of(work: impl FnOnce() + Send, threads: usize) -> u64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    pool.install(work);
    (PEAK.load(Ordering::Relaxed) - before) as u64
}

/// Histories and tags, as a platform holds them.
struct World {
    histories: Vec<Vec<(u32, f32)>>,
    tags: Vec<Vec<(u32, f32)>>,
    ordered: bool,
}

impl World {
    fn new(users: usize, items: usize, each: usize, ordered: bool) -> Self {
        let mut random = Random::new(3);
        let mut row = |of: usize, count: usize| {
            let mut row: Vec<u32> = (0..count).map(|_| u32::try_from(random.below(of)).expect("small")).collect();
            row.sort_unstable();
            row.dedup();
            row.into_iter().map(|one| (one, 1.5)).collect::<Vec<_>>()
        };
        let histories = (0..users).map(|_| row(items, each)).collect();
        let tags = (0..items).map(|_| row(40, 4)).collect();
        Self { histories, tags, ordered }
    }

    fn size(&self, threads: usize) -> FitSize {
        let pairs = self.histories.iter().map(Vec::len).sum::<usize>() as u64;
        FitSize {
            users: self.histories.len() as u64,
            items: self.tags.len() as u64,
            pairs,
            features: self.tags.iter().map(Vec::len).sum::<usize>() as u64,
            steps: if self.ordered { pairs * 10 } else { 0 },
            threads: threads as u64,
        }
    }

    fn inputs(&self) -> (Interactions, Interactions) {
        let items = self.tags.len();
        let rows = self.histories.iter().map(|row| row.iter().map(|(item, _)| *item));
        let weighted = Interactions::from_weighted(self.histories.iter().cloned(), items).expect("weights");
        (Interactions::from_rows(rows, items), weighted)
    }

    /// A whole fit, as the platform does it.
    fn fit(&self, options: BlendOptions) {
        let (histories, weighted) = self.inputs();
        let features = || Interactions::from_weighted(self.tags.iter().cloned(), 40).expect("weights");
        let (tags, features) = (features(), features());
        let at = |(place, known): (i64, &(u32, f32))| (known.0, place);
        let sequences: Vec<Vec<(u32, i64)>> =
            self.histories.iter().filter(|_| self.ordered).map(|row| (0..).zip(row).map(at).collect()).collect();
        let blend = Blend::fit(&histories, Some(&tags), options).expect("options");
        let follow = SequenceOptions::default();
        let links = transitions(&sequences, self.tags.len(), follow).expect("options");
        let blend = blend.with_links(&histories, links, follow.weight).expect("of the same items");
        let graph = blend.compile(&|_| {});
        let lists: Vec<Vec<(u32, f32)>> = (0..64).map(|user| weighted.entries(user).collect()).collect();
        cut::kept(&lists, 20, &graph, &|histories, out| blend.add_scores(histories, out)).expect("listeners");
        drop(blend);
        let near = content::neighbours(&features, &histories.item_degrees(), ContentOptions::default());
        let near = near.expect("options");
        let graph =
            content::added(&graph, &near, content::scale(&graph, &near, &histories)).expect("of the same items");
        Social::fit(&weighted, &[], &graph, SocialOptions::default()).expect("options");
    }

    /// A fit of co-listening alone.
    fn fit_graph(&self, links: usize) {
        let (histories, weighted) = self.inputs();
        let graph = ItemGraph::fit(&histories, GraphOptions { neighbours: links, ..GraphOptions::default() });
        Social::fit(&weighted, &[], &graph, SocialOptions::default()).expect("options");
    }
}

#[test]
fn the_peak_of_a_fit_is_below_the_estimate_and_below_what_it_may_take() {
    let options = BlendOptions::default();
    let worlds = [
        (World::new(200, 600, 20, false), 1),
        (World::new(1_500, 300, 30, false), 3),
        (World::new(100, 3_000, 12, true), 2),
    ];
    for (world, threads) in &worlds {
        let size = world.size(*threads);
        let ease = EaseOptions { head: 100, ..options.ease };
        let shapes = [
            options,
            BlendOptions { ease, ..options },
            BlendOptions { ease_weight: 0.0, ..options },
            BlendOptions { whole: 0, ease, ..options },
        ];
        for options in shapes {
            let (estimate, peak) = (size.blend_bytes(&options), peak_of(|| world.fit(options), *threads));
            assert!(peak <= estimate, "{size:?} {options:?}: {peak} of {estimate}");
        }
        for links in [256, 16] {
            let (estimate, peak) = (size.graph_bytes(links), peak_of(|| world.fit_graph(links), *threads));
            assert!(peak <= estimate, "{size:?} {links}: {peak} of {estimate}");
        }
        // From what it takes whole down to where nothing fits.
        let mut allowed = size.blend_bytes(&options);
        while let Ok(plan) = size.plan(options, allowed) {
            let fit = || match plan.blend {
                Some(blend) => world.fit(blend),
                None => world.fit_graph(plan.links),
            };
            let peak = peak_of(fit, *threads);
            assert!(peak <= allowed && plan.bytes <= allowed, "{size:?} {plan:?}: {peak} of {allowed}");
            allowed = allowed / 100 * 70;
        }
    }
}
