"""serving: endpoints, rollouts and what came of them, feedback"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('endpoints',
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('auth_required', sa.Boolean(), server_default='true', nullable=False),
    sa.Column('requests_per_minute', sa.Integer(), nullable=True, comment='of each caller to this model; null: as their plan says'),
    sa.Column('timeout_ms', sa.Integer(), nullable=True, comment='null: as the settings say'),
    sa.Column('revision', sa.Integer(), server_default='1', nullable=False, comment='its ETag'),
    sa.Column('updated_by', sa.Uuid(), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('requests_per_minute >= 0', name=op.f('ck_endpoints_requests_per_minute')),
    sa.CheckConstraint('timeout_ms > 0', name=op.f('ck_endpoints_timeout_ms')),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_endpoints_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['updated_by'], ['users.id'], name=op.f('fk_endpoints_updated_by_users'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('model_id', name=op.f('pk_endpoints'))
    )
    op.create_table('rollouts',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('target', sa.Text(), nullable=False),
    sa.Column('control_id', sa.Uuid(), nullable=False, comment='what was live when it began'),
    sa.Column('candidate_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('weight', sa.Double(), nullable=False, comment="the candidate's share of the requests, or of the shadow copies"),
    sa.Column('sticky', sa.Text(), server_default='none', nullable=False),
    sa.Column('rules', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='what decides it'),
    sa.Column('status', sa.Text(), server_default='running', nullable=False),
    sa.Column('decision', postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment='the figures that it was decided by'),
    sa.Column('note', sa.Text(), server_default='', nullable=False, comment='why it was begun'),
    sa.Column('reason', sa.Text(), nullable=True, comment='why it ended'),
    sa.Column('started_by', sa.Uuid(), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('ended_by', sa.Uuid(), nullable=True, comment='null: Slipway itself'),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(status = 'running') = (ended_at IS NULL)", name=op.f('ck_rollouts_only_running_has_no_end')),
    sa.CheckConstraint("kind IN ('canary', 'ab', 'shadow')", name=op.f('ck_rollouts_kind')),
    sa.CheckConstraint("status IN ('running', 'promoted', 'rolled_back', 'stopped')", name=op.f('ck_rollouts_status')),
    sa.CheckConstraint("sticky IN ('none', 'user', 'key')", name=op.f('ck_rollouts_sticky')),
    sa.CheckConstraint("target IN ('development', 'staging', 'production')", name=op.f('ck_rollouts_target')),
    sa.CheckConstraint('control_id <> candidate_id', name=op.f('ck_rollouts_two_versions')),
    sa.CheckConstraint('weight > 0 AND weight <= 1', name=op.f('ck_rollouts_weight')),
    sa.ForeignKeyConstraint(['candidate_id'], ['versions.id'], name=op.f('fk_rollouts_candidate_id_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['control_id'], ['versions.id'], name=op.f('fk_rollouts_control_id_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['ended_by'], ['users.id'], name=op.f('fk_rollouts_ended_by_users')),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_rollouts_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['started_by'], ['users.id'], name=op.f('fk_rollouts_started_by_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_rollouts'))
    )
    op.create_index(op.f('ix_rollouts_candidate_id'), 'rollouts', ['candidate_id'], unique=False)
    op.create_index(op.f('ix_rollouts_control_id'), 'rollouts', ['control_id'], unique=False)
    op.create_index(op.f('ix_rollouts_model_id'), 'rollouts', ['model_id'], unique=False)
    op.create_index('uq_rollouts_running', 'rollouts', ['model_id', 'target'], unique=True, postgresql_where=sa.text("status = 'running'"))
    op.create_table('feedback',
    sa.Column('prediction_id', sa.Text(), nullable=False, comment='each prediction is judged once'),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('rollout_id', sa.Uuid(), nullable=True),
    sa.Column('arm', sa.Text(), nullable=True),
    sa.Column('right', sa.Boolean(), nullable=False),
    sa.Column('label', sa.Text(), nullable=True, comment='what would have been right, where it was said'),
    sa.Column('given_by', sa.Uuid(), nullable=True),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['given_by'], ['users.id'], name=op.f('fk_feedback_given_by_users'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['rollout_id'], ['rollouts.id'], name=op.f('fk_feedback_rollout_id_rollouts'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_feedback_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('prediction_id', name=op.f('pk_feedback'))
    )
    op.create_index(op.f('ix_feedback_rollout_id'), 'feedback', ['rollout_id'], unique=False)
    op.create_index('ix_feedback_version_id_at', 'feedback', ['version_id', 'at'], unique=False)
    op.create_table('tallies',
    sa.Column('rollout_id', sa.Uuid(), nullable=False),
    sa.Column('arm', sa.Text(), nullable=False),
    sa.Column('requests', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('errors', sa.BigInteger(), server_default='0', nullable=False, comment="answers that were the service's fault"),
    sa.Column('slow', sa.BigInteger(), server_default='0', nullable=False, comment="answers above the rule's latency"),
    sa.Column('compared', sa.BigInteger(), server_default='0', nullable=False, comment='shadow copies with an answer of both'),
    sa.Column('disagreed', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('right', sa.BigInteger(), server_default='0', nullable=False, comment='by feedback'),
    sa.Column('wrong', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('seconds', sa.Double(), server_default='0', nullable=False, comment='sum of the latencies'),
    sa.Column('latencies', sa.ARRAY(sa.BigInteger()), server_default='{}', nullable=False, comment='counts by bucket'),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("arm IN ('control', 'candidate')", name=op.f('ck_tallies_arm')),
    sa.ForeignKeyConstraint(['rollout_id'], ['rollouts.id'], name=op.f('fk_tallies_rollout_id_rollouts'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('rollout_id', 'arm', name=op.f('pk_tallies'))
    )


def downgrade() -> None:
    op.drop_table('tallies')
    op.drop_index('ix_feedback_version_id_at', table_name='feedback')
    op.drop_index(op.f('ix_feedback_rollout_id'), table_name='feedback')
    op.drop_table('feedback')
    op.drop_index('uq_rollouts_running', table_name='rollouts', postgresql_where=sa.text("status = 'running'"))
    op.drop_index(op.f('ix_rollouts_model_id'), table_name='rollouts')
    op.drop_index(op.f('ix_rollouts_control_id'), table_name='rollouts')
    op.drop_index(op.f('ix_rollouts_candidate_id'), table_name='rollouts')
    op.drop_table('rollouts')
    op.drop_table('endpoints')
