"""Back-test: what another policy would have done in what once happened.

A recorded timeline of cloud states and probe verdicts is replayed, in virtual time, through the
very code that decides in earnest (`decide`, `recall`). Called by `vmshepherd policy backtest`; asks
nobody, opens no file and knows no wire.
"""
