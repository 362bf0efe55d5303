"""KFP interfaces of the stages: typed inputs and outputs, one folder a stage, no logic.

Nothing that runs inside a task may import this package: inside a task kfp cannot define components.
"""
