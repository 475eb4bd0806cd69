//! What a fit of the blend allocates, told beforehand from the size of its data, and how it is made smaller until
//! it fits.
//!
//! The estimate is a sum over what is held at one time, from above: a list that grows counts double, since it grows
//! by doubling, and three times while it does. With `P` pairs of listener and item, `U` listeners, `I` items, `D`
//! pairs of item and tag or artist, `F` steps from one listen to one that follows, `T` threads, an EASE head of `n`
//! and `L` links per item, in bytes:
//!
//! | what | held | beside it |
//! |---|---|---|
//! | histories, tags and sequences as matrices | 40 P + 80 D + 48 (U + I) | |
//! | the filter | 48 P + 48 (U + I) | 24 P |
//! | its low pass of rank r, with l = 9/8 r + 8 | 12 I r | 16 (U + I) l + 80 l² |
//! | EASE | 4 n² + 4 n | 32 (P + D) + 4,096 n + 2²² + T (44 I + 2²²) |
//! | what follows what | 16 F' + 8 I, F' at most L I | 40 F + 32 I |
//! | a compiled graph | 8 L I + 8 I | 8 L I + 32 I + T (384 I + 192 U) |
//! | links of content | 16 N I + 8 I, N of them per item | 48 D + 8 A I, and T (8 I + 16 A) |
//!
//! A is how many items share a tag with one, at most I; it is held for one item per thread only.

use crate::blend::BlendOptions;

/// The least that a fit may be given: room for the fixed parts and a catalogue of some thousands.
pub const LEAST_FIT_BYTES: u64 = 64 << 20;
/// Buffers of one thread: panels of matrix products, and stacks.
const THREAD: u64 = 4 << 20;
/// The smallest EASE head that is worth its fit.
const LEAST_HEAD: u64 = 256;
/// Links per item below which lists are no longer worth having.
const LEAST_LINKS: usize = 16;
/// Links of content per item.
const CONTENT: u64 = 64;

/// The size of what is fitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FitSize {
    /// Listeners.
    pub users: u64,
    /// Items.
    pub items: u64,
    /// Pairs of a listener and an item in a history.
    pub pairs: u64,
    /// Pairs of an item and what describes it, such as a tag or its artist.
    pub features: u64,
    /// Steps from one listen to another that follows it; 0 where order does not count.
    pub steps: u64,
    /// Threads that fit.
    pub threads: u64,
}

/// What is fitted within a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct FitPlan {
    /// The blend; none where co-listening alone has room.
    pub blend: Option<BlendOptions>,
    /// Links kept per item.
    pub links: usize,
    /// Bytes that the fit takes at the most, by the estimate.
    pub bytes: u64,
    /// What was made smaller or left out, in words; empty when nothing was.
    pub notes: Vec<String>,
}

/// A bound that nothing fits into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("even co-listening with few links takes {needed} bytes, more than the {allowed} that a fit may take")]
pub struct FitTooLarge {
    /// What the smallest fit takes.
    pub needed: u64,
    /// What it may take.
    pub allowed: u64,
}

impl FitSize {
    /// Bytes that a fit of the blend allocates at its peak, at the most, with its inputs as matrices. `O(1)`.
    pub fn blend_bytes(&self, options: &BlendOptions) -> u64 {
        let Self { users, items, pairs, features, steps, threads } = *self;
        let links = links_of(options.links, items);
        let both = users + items;
        let rank = if options.filter.low_pass == 0.0 { 0 } else { (options.filter.rank as u64).min(users).min(items) };
        let carried = if rank == 0 { 0 } else { rank * 9 / 8 + 8 };
        let head = self.head(options);
        let inputs = self.input_bytes();
        let whole = self.filter_is_whole(options);
        let filter = if whole { 48 * pairs + 48 * both + 12 * items * rank } else { 8 * links * items };
        let fit_filter = if whole {
            24 * pairs + 16 * both * carried + 80 * carried * carried
        } else {
            8 * links * items + threads * (16 * items + 16 * links)
        };
        let ease = 4 * head * head + 4 * head;
        let fit_ease = if head == 0 {
            0
        } else {
            32 * (pairs + features) + 4_096 * head + THREAD + threads * (44 * items + THREAD)
        };
        let followed = if steps == 0 { 0 } else { 16 * steps.min(links * items) + 8 * items };
        let follow = if steps == 0 { 0 } else { 40 * steps + 32 * items };
        let graph = 8 * links * items + 8 * items;
        let scratch = if whole { threads * (384 * items + 192 * users) } else { threads * 8 * items };
        let compile = 8 * links * items + 32 * items + scratch;
        let content = 16 * CONTENT * items + 8 * items;
        let fit_content = 48 * features + threads * (24 * items);
        let phases = [
            filter + fit_filter,
            filter + ease + fit_ease,
            filter + ease + scratch,
            filter + ease + followed + follow,
            filter + ease + followed + graph + compile,
            graph + content + fit_content,
            // The links of content are added to a copy.
            2 * graph + content + 8 * (links + CONTENT) * items + 32 * items,
        ];
        inputs + phases.into_iter().max().unwrap_or(0) + threads * THREAD
    }

    /// Bytes that a fit of co-listening alone allocates at its peak, at the most. `O(1)`.
    pub fn graph_bytes(&self, links: usize) -> u64 {
        let links = links_of(links, self.items);
        let rows = 24 * self.items + 16 * links * self.items + 8 * self.items;
        self.input_bytes() + 8 * self.pairs + rows + self.threads * (32 * self.items + THREAD)
    }

    fn input_bytes(&self) -> u64 {
        40 * self.pairs + 80 * self.features + 48 * (self.users + self.items)
    }

    /// Items of the EASE head.
    fn head(&self, options: &BlendOptions) -> u64 {
        if options.ease_weight == 0.0 { 0 } else { (options.ease.head as u64).min(self.items) }
    }

    fn filter_is_whole(&self, options: &BlendOptions) -> bool {
        self.pairs.saturating_mul(self.items) <= options.whole as u64
    }

    /// The largest fit by these options that stays within `allowed` bytes: the head of EASE is made smaller first,
    /// then co-listening stands for the filter, then EASE is left out, and at last co-listening serves alone, with
    /// fewer and fewer links. Time O(log head).
    ///
    /// # Errors
    /// Nothing fits.
    pub fn plan(&self, options: BlendOptions, allowed: u64) -> Result<FitPlan, FitTooLarge> {
        let cut = BlendOptions { whole: 0, ..options };
        let without = |options: BlendOptions| BlendOptions { ease_weight: 0.0, ..options };
        let filter = "co-listening stands for the filter";
        let no_ease = "EASE is left out";
        let small = self.with_head(options, allowed);
        let small_cut = self.with_head(cut, allowed);
        let candidates = [
            (Some(options), vec![]),
            (small, small.map(|one| self.head_note(options, one)).into_iter().collect()),
            (small_cut, small_cut.map(|one| self.head_note(options, one)).into_iter().chain([filter.into()]).collect()),
            (Some(without(options)), vec![no_ease.to_owned()]),
            (Some(without(cut)), vec![no_ease.to_owned(), filter.to_owned()]),
        ];
        for (blend, notes) in candidates {
            let Some(blend) = blend else { continue };
            let bytes = self.blend_bytes(&blend);
            if bytes <= allowed {
                return Ok(FitPlan { links: blend.links, blend: Some(blend), bytes, notes });
            }
        }
        self.plan_graph(options.links, allowed).map(|plan| {
            let alone = std::iter::once("co-listening alone is fitted".to_owned());
            FitPlan { notes: alone.chain(plan.notes).collect(), ..plan }
        })
    }

    /// The same for co-listening alone.
    ///
    /// # Errors
    /// Nothing fits.
    pub fn plan_graph(&self, wanted: usize, allowed: u64) -> Result<FitPlan, FitTooLarge> {
        let mut links = wanted;
        loop {
            let needed = self.graph_bytes(links);
            if needed <= allowed {
                let note = (links < wanted).then(|| format!("{links} links per item are kept instead of {wanted}"));
                return Ok(FitPlan { blend: None, links, bytes: needed, notes: note.into_iter().collect() });
            }
            if links <= LEAST_LINKS {
                return Err(FitTooLarge { needed, allowed });
            }
            links = (links / 2).max(LEAST_LINKS);
        }
    }

    fn head_note(&self, wanted: BlendOptions, given: BlendOptions) -> String {
        format!("EASE's head is cut from {} to {} items", self.head(&wanted), self.head(&given))
    }

    /// The options with the largest head that fits; none when that is too small to be worth its fit.
    fn with_head(&self, options: BlendOptions, allowed: u64) -> Option<BlendOptions> {
        let of = |head: u64| {
            let head = usize::try_from(head).unwrap_or(usize::MAX);
            BlendOptions { ease: crate::ease::EaseOptions { head, ..options.ease }, ..options }
        };
        let (mut fits, mut too_large) = (0, self.head(&options) + 1);
        while too_large - fits > 1 {
            let middle = u64::midpoint(fits, too_large);
            if self.blend_bytes(&of(middle)) <= allowed {
                fits = middle;
            } else {
                too_large = middle;
            }
        }
        (fits >= LEAST_HEAD.min(self.items).max(2)).then(|| of(fits))
    }
}

fn links_of(links: usize, items: u64) -> u64 {
    (links as u64 + 1).min(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HETREC: FitSize =
        FitSize { users: 1_892, items: 17_632, pairs: 92_834, features: 109_750, steps: 0, threads: 1 };

    #[test]
    fn what_has_room_is_fitted_whole_and_less_room_makes_ever_smaller_fits() {
        let options = BlendOptions::default();
        let whole = HETREC.plan(options, 1 << 30).expect("fits");
        assert_eq!((whole.blend, whole.notes.len()), (Some(options), 0));
        let mut before = options.ease.head;
        for percent in [99, 97, 95] {
            let allowed = whole.bytes * percent / 100;
            let plan = HETREC.plan(options, allowed).expect("fits");
            let head = plan.blend.expect("a blend").ease.head;
            assert!(plan.bytes <= allowed && head < before, "{allowed}: {plan:?}");
            before = head;
        }
        let alone = HETREC.plan(options, whole.bytes * 2 / 3).expect("fits");
        assert_eq!(
            (alone.blend, alone.links, alone.notes),
            (None, 256, vec!["co-listening alone is fitted".to_owned()])
        );
        let fewer = HETREC.plan(options, LEAST_FIT_BYTES).expect("fits");
        assert!(fewer.blend.is_none() && fewer.links < 256 && fewer.notes.len() == 2, "{fewer:?}");
    }

    #[test]
    fn a_head_that_was_cut_is_the_largest_that_fits() {
        let options = BlendOptions::default();
        let allowed = HETREC.blend_bytes(&options) / 100 * 96;
        let plan = HETREC.plan(options, allowed).expect("fits");
        let blend = plan.blend.expect("a blend");
        let more = crate::ease::EaseOptions { head: blend.ease.head + 1, ..blend.ease };
        assert!(HETREC.blend_bytes(&BlendOptions { ease: more, ..blend }) > allowed);
        assert_eq!(plan.notes, [format!("EASE's head is cut from 4096 to {} items", blend.ease.head)]);
    }

    #[test]
    fn where_nothing_fits_it_is_said_what_the_smallest_fit_takes() {
        let many = FitSize { items: 50_000_000, pairs: 1_000_000_000, users: 9_000_000, ..HETREC };
        let error = many.plan(BlendOptions::default(), LEAST_FIT_BYTES).expect_err("too large");
        assert_eq!((error.allowed, error.needed), (LEAST_FIT_BYTES, many.graph_bytes(LEAST_LINKS)));
        assert!(many.plan(BlendOptions::default(), error.needed).is_ok());
    }
}
