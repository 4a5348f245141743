//! What the witness looks for.

/// What a run must keep at every moment; numbered as in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// 1. A dot has one value, ever.
    OneValue,
    /// 2. No state covers a dot that is not in it, unless a write that had seen it has superseded it.
    NothingVanishes,
    /// 3. What was acknowledged is on as many disks as it was acknowledged by, lost ones counted.
    Kept,
    /// 4. No state counts a history further than its owner has made durable.
    NothingInvented,
    /// 6. A copy is dropped only when every primary holds what it held.
    DroppedOnProof,
    /// 7. Markers and held copies match.
    MarkersMatch,
    /// 7. Hash trees are what they would be if they were made anew.
    TreesMatch,
    /// 8. At an acknowledgement enough nodes hold the write durably, and a read was answered by enough that count.
    QuorumMet,
    /// 8. Of each epoch there is one decree.
    OneLog,
    /// 8. A layout is read only once its primaries have what the old ones had (R16).
    CopiedFirst,
    /// 8. A directory that has come in the place of a lost one counts once it has what the others had (R8).
    FilledFirst,
    /// 9. A tombstone goes when nothing older is left anywhere, and what it covers does not come back (R11).
    StaysDeleted,
    /// 10. Whatever can be done is done, and everything ends.
    Progress,
}

impl Invariant {
    /// Those that are looked at whenever something happens.
    pub const SEEN_INSIDE: [Invariant; 12] = [
        Invariant::OneValue,
        Invariant::NothingVanishes,
        Invariant::Kept,
        Invariant::NothingInvented,
        Invariant::DroppedOnProof,
        Invariant::MarkersMatch,
        Invariant::TreesMatch,
        Invariant::QuorumMet,
        Invariant::OneLog,
        Invariant::CopiedFirst,
        Invariant::FilledFirst,
        Invariant::StaysDeleted,
    ];

    pub fn number(self) -> u8 {
        match self {
            Invariant::OneValue => 1,
            Invariant::NothingVanishes => 2,
            Invariant::Kept => 3,
            Invariant::NothingInvented => 4,
            Invariant::DroppedOnProof => 6,
            Invariant::MarkersMatch | Invariant::TreesMatch => 7,
            Invariant::QuorumMet | Invariant::OneLog | Invariant::CopiedFirst | Invariant::FilledFirst => 8,
            Invariant::StaysDeleted => 9,
            Invariant::Progress => 10,
        }
    }

    pub fn claim(self) -> &'static str {
        match self {
            Invariant::OneValue => "a dot has one value, ever",
            Invariant::NothingVanishes => "nothing vanishes but by a write that had seen it",
            Invariant::Kept => "what was acknowledged stays on as many disks",
            Invariant::NothingInvented => "no clock counts further than its owner has made durable",
            Invariant::DroppedOnProof => "a copy goes only when every primary has it",
            Invariant::MarkersMatch => "markers and held copies match",
            Invariant::TreesMatch => "hash trees tell of exactly what is held",
            Invariant::QuorumMet => "an answer means that its quorum was met",
            Invariant::OneLog => "of each epoch there is one decree",
            Invariant::CopiedFirst => "a layout is read once its primaries have what the old ones had",
            Invariant::FilledFirst => "a new directory counts once it has what the others had",
            Invariant::StaysDeleted => "what is deleted and forgotten does not come back",
            Invariant::Progress => "what can be done is done, what must not be done is refused, and everything ends",
        }
    }
}
