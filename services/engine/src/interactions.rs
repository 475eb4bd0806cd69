/// Who knows what: a sparse binary matrix, users × items, by rows.
#[derive(Debug, Clone)]
pub struct Interactions {
    offsets: Vec<usize>,
    items: Vec<u32>,
    item_count: usize,
}

impl Interactions {
    /// From the items of each user. An item named twice by one user counts once; an item at or
    /// beyond `item_count` is left out.
    pub fn from_rows<R: IntoIterator<Item = u32>>(rows: impl IntoIterator<Item = R>, item_count: usize) -> Self {
        let mut offsets = vec![0];
        let mut items = Vec::new();
        for row in rows {
            let mut row: Vec<u32> = row.into_iter().filter(|item| (*item as usize) < item_count).collect();
            row.sort_unstable();
            row.dedup();
            items.extend(row);
            offsets.push(items.len());
        }
        Self { offsets, items, item_count }
    }

    /// Number of rows.
    pub const fn user_count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of columns.
    pub const fn item_count(&self) -> usize {
        self.item_count
    }

    /// The items of a user, ascending.
    pub fn row(&self, user: usize) -> &[u32] {
        &self.items[self.offsets[user]..self.offsets[user + 1]]
    }

    /// How many users know each item.
    pub fn item_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.item_count];
        for item in &self.items {
            degrees[*item as usize] += 1;
        }
        degrees
    }

    /// The users of each item: the transposed matrix.
    pub(crate) fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.item_count + 1];
        for item in &self.items {
            offsets[*item as usize + 1] += 1;
        }
        for item in 0..self.item_count {
            offsets[item + 1] += offsets[item];
        }
        let mut next = offsets.clone();
        let mut users = vec![0; self.items.len()];
        for user in 0..self.user_count() {
            for item in self.row(user) {
                users[next[*item as usize]] = u32::try_from(user).expect("at most 2^32 users");
                next[*item as usize] += 1;
            }
        }
        Self { offsets, items: users, item_count: self.user_count() }
    }
}
