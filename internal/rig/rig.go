// Package rig is what tests and scripts try the tunnel with: programs that are
// started, stopped and killed ([Site], [Proc]), and links between them that are
// long, slow, silent or cut ([Path]). An [App] logs which requests it ran and a
// [Visitor] judges what came back, byte for byte; [Reconcile] holds one against
// the other. Nothing of the product imports it.
package rig
