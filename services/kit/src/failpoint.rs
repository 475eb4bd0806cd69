//! Points in the code at which a test has a process die as by SIGKILL, where it hurts most: between an effect and the
//! note that it was done. Without the feature `failpoints` there are none.

/// The variable that names the point at which a process dies.
pub const VARIABLE: &str = "ECHOTUNE_FAILPOINT";

/// Ends the process at once, unwritten buffers and all, when [`VARIABLE`] names this point.
#[cfg(feature = "failpoints")]
pub fn reach(point: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|named| named == point) {
        eprintln!("failpoint '{point}' is reached; the process ends here");
        std::process::abort();
    }
}

/// Nothing: the program was built without failpoints.
#[cfg(not(feature = "failpoints"))]
pub const fn reach(_: &str) {}
