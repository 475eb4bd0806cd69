/// Rows in one page at the most.
pub const MAX_PAGE: u32 = 1_000;

/// Which part of a long list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// How many rows: 1 to [`MAX_PAGE`]; 0 for the default of 100.
    pub size: u32,
    /// `next` of the page before; empty for the first page.
    pub token: String,
}

/// A part of a long list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Token of the next page; empty when this is the last one.
    pub next: String,
}
