//! Opening a data folder: who may see it, and whether it is one.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

use redb::{Database, ReadOnlyDatabase, backends::FileBackend};

use super::{Batch, FORMAT, Key, META, STORE_FILE, StoreError, View, error::failed, get, writer::WriteView};

/// Bytes of pages held in memory at the most; beyond them the system's page cache serves.
pub(super) const CACHE: usize = 64 << 20;

/// Creates a folder, and those above it, that only the owner may enter.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens the file of a store, creating one that only the owner may read.
pub(super) fn open_store(folder: &Path) -> Result<Database, redb::DatabaseError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(folder.join(STORE_FILE))?;
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

/// Opens the file of a store that is there, to be read only.
pub(super) fn open_read_only(folder: &Path) -> Result<ReadOnlyDatabase, StoreError> {
    Database::builder().set_cache_size(CACHE).open_read_only(folder.join(STORE_FILE)).map_err(|cause| match cause {
        redb::DatabaseError::RepairAborted => StoreError::Open(format!(
            "the process that used data folder {0} last was killed, and its store has to be repaired first, which changes it; run `echotune --data {0} status` once, then try again",
            folder.display()
        )),
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            StoreError::Open(format!("data folder {} holds no data; name another one with --data", folder.display()))
        }
        cause => open_error(folder, &cause),
    })
}

fn newer(found: u64, folder: &Path) -> StoreError {
    StoreError::Open(format!(
        "data folder {} was written by a newer version (format {found}, this program knows {FORMAT}); update EchoTune or choose another folder with --data",
        folder.display()
    ))
}

/// Checks the format of a store that is not written.
pub(super) fn check_readable(view: &dyn View, folder: &Path) -> Result<(), StoreError> {
    match get::<u64>(view, META, &Key::new().text("format"))? {
        Some(found) if found > FORMAT => Err(newer(found, folder)),
        _ => Ok(()),
    }
}

/// Creates a file that was not there, and that only the owner may read.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(super) fn open_error(folder: &Path, cause: &redb::DatabaseError) -> StoreError {
    let shown = folder.display();
    StoreError::Open(match cause {
        redb::DatabaseError::DatabaseAlreadyOpen => return StoreError::InUse(shown.to_string()),
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            format!("{STORE_FILE} in data folder {shown} is not a store of EchoTune: {error}")
        }
        other => format!("data folder {shown} cannot be opened: {other}"),
    })
}

pub(super) fn check_format(database: &Database, folder: &Path) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(|cause| failed("write")(cause.into()))?;
    {
        let view = WriteView::new(&transaction, false);
        let key = Key::new().text("format");
        match get::<u64>(&view, META, &key)? {
            Some(found) if found > FORMAT => {
                return Err(newer(found, folder));
            }
            Some(_) => return Ok(()),
            None => {
                let mut batch = Batch::default();
                batch.put(META, key, &FORMAT);
                view.apply(batch)?;
            }
        }
    }
    transaction.commit().map_err(|cause| failed("write")(cause.into()))
}
