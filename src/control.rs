//! The one composer: ticks of the directory and joins of proxies in, snapshots out.

mod fleet;
mod identity;
mod roster;
mod secrets;
mod state;

pub use fleet::{Event, Proxies, reason};
pub use identity::{Grant, GrantError};
pub use roster::{Admission, MemberId, ProxyStatus, RefusalRecord, RefusalStatus, Roster};
pub use secrets::Secrets;
pub use state::{Generation, Published, State};
