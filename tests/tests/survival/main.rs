//! What many restarts and many changes leave behind: nothing; and everything at once, for a moment.

mod more_than_fits;
