// Command empty is the yardstick: the least that a static Go program costs.
package main

func main() {}
